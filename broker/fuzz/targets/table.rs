#![no_main]
//! Field tables. A table that parses is encoded and parsed again.
use leveret_model::wire::table;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = table::parse_entries(bytes);
    if let Ok(table) = table::parse(bytes) {
        let mut again = Vec::new();
        table::encode(&mut again, &table);
        assert!(table::parse(&again).is_ok());
    }
});
