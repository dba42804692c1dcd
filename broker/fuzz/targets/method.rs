#![no_main]
//! Payloads of method frames.
use leveret_amqp091::codec::method;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = method::parse(bytes);
    let _ = method::fast_publish(bytes);
    let _ = method::fast_ack(bytes);
});
