#![no_main]
//! Content headers; what parses is encoded and parsed again.
use leveret_amqp091::codec::content::{ContentHeader, Properties};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = ContentHeader::parse(bytes) else { return };
    if let Ok(properties) = Properties::parse(header.properties_raw) {
        let mut again = Vec::new();
        properties.encode(&mut again);
        assert!(Properties::parse(&again).is_ok());
    }
});
