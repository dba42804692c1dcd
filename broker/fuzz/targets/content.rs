#![no_main]
//! Content headers and their properties. Properties that parse are encoded and parsed again.
use leveret_amqp091::codec::content::ContentHeader;
use leveret_model::properties::{self, Properties};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = ContentHeader::parse(bytes) else { return };
    assert_eq!(properties::check(header.properties_raw).is_ok(), Properties::parse(header.properties_raw).is_ok());
    let _ = properties::without_header(header.properties_raw, b"BCC");
    if let Ok(properties) = Properties::parse(header.properties_raw) {
        let mut again = Vec::new();
        properties.encode(&mut again);
        assert!(Properties::parse(&again).is_ok());
    }
});
