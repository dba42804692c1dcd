#![no_main]
//! Frames one after the other, as a connection reads them.
use leveret_amqp091::codec::frame;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut at = 0;
    while let Ok(Some(frame)) = frame::parse(&bytes[at..], 8192) {
        at += frame.len;
    }
    let _ = frame::protocol(bytes);
});
