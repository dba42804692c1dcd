//! Routing by each type, and the topic trie against a matcher that anyone can check by eye.
use super::*;
use leveret_model::table::FieldValue;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn routed(router: &Router<u32>, key: &str, headers: Option<&FieldTable>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    router.route(key.as_bytes(), headers, &mut |target| {
        found.insert(target);
    });
    found
}

#[test]
fn direct_and_fanout() {
    let none = FieldTable::default();
    let mut direct = Router::new(ExchangeType::Direct);
    direct.bind(b"a", &none, 1);
    direct.bind(b"a", &none, 2);
    direct.bind(b"b", &none, 3);
    assert_eq!(routed(&direct, "a", None), [1, 2].into());
    direct.unbind(b"a", &none, 1);
    assert_eq!(routed(&direct, "a", None), [2].into());
    assert_eq!(routed(&direct, "A", None), [].into());
    let mut fanout = Router::new(ExchangeType::Fanout);
    fanout.bind(b"a", &none, 1);
    fanout.bind(b"", &none, 2);
    assert_eq!(routed(&fanout, "whatever", None), [1, 2].into());
}

#[test]
fn topic_patterns() {
    for (pattern, key, expected) in [
        ("a.b", "a.b", true),
        ("a.*", "a.b", true),
        ("a.*", "a", false),
        ("a.*", "a.b.c", false),
        ("a.#", "a", true),
        ("a.#", "a.b.c", true),
        ("#", "", true),
        ("#", "a.b", true),
        ("*", "", false),
        ("*", "a", true),
        ("", "", true),
        ("", "a", false),
        ("#.#", "a", true),
        ("#.a.#", "x.a", true),
        ("#.a.#", "x.b", false),
        ("a.*.c", "a..c", true),
        ("*.*", ".", true),
        ("*.#", "", false),
        ("a*", "ab", false),
    ] {
        let mut topic = Router::new(ExchangeType::Topic);
        topic.bind(pattern.as_bytes(), &FieldTable::default(), 1);
        assert_eq!(!routed(&topic, key, None).is_empty(), expected, "{pattern} against {key}");
        topic.unbind(pattern.as_bytes(), &FieldTable::default(), 1);
        assert!(routed(&topic, key, None).is_empty());
    }
    assert!(check_topic_pattern(b"#.#.#").is_ok());
    assert!(check_topic_pattern(b"#.#.#.#.#.#.#.#.#").is_err());
}

#[test]
fn headers_by_all_and_any() {
    let table = |entries: &[(&str, FieldValue)]| entries.iter().cloned().collect::<FieldTable>();
    let sent = table(&[("a", "1".into()), ("n", FieldValue::Int32(7)), ("x-y", "z".into())]);
    for (arguments, expected) in [
        (table(&[]), true),
        (table(&[("a", "1".into())]), true),
        (table(&[("a", "2".into())]), false),
        (table(&[("a", FieldValue::Void)]), true),
        (table(&[("a", "1".into()), ("b", "1".into())]), false),
        (table(&[("x-match", "any".into()), ("a", "1".into()), ("b", "1".into())]), true),
        (table(&[("x-match", "any".into())]), false),
        (table(&[("n", FieldValue::Int64(7))]), true),
        (table(&[("x-y", "other".into())]), true),
        (table(&[("x-match", "all-with-x".into()), ("x-y", "other".into())]), false),
        (table(&[("x-match", "any-with-x".into()), ("x-y", "z".into())]), true),
    ] {
        let mut headers = Router::new(ExchangeType::Headers);
        headers.bind(b"", &arguments, 1);
        assert_eq!(!routed(&headers, "", Some(&sent)).is_empty(), expected, "{arguments:?}");
    }
    assert!(check_headers_binding(&table(&[("x-match", "some".into())])).is_err());
}

/// Whether a pattern matches, word by word, as the specification says it.
fn matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), None) => matches(rest, key),
        (Some((&"#", rest)), Some((_, key_rest))) => matches(rest, key) || matches(pattern, key_rest),
        (Some((word, rest)), Some((key_word, key_rest))) => {
            (*word == "*" || word == key_word) && matches(rest, key_rest)
        }
        _ => false,
    }
}

fn words(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

proptest! {
    #[test]
    fn the_trie_finds_what_the_specification_says(
        patterns in prop::collection::vec("([ab*#](\\.[ab*#]){0,4})?", 1..8),
        removed in prop::collection::vec(any::<bool>(), 8),
        key in "([abc](\\.[abc]){0,5})?",
    ) {
        let mut topic = Router::new(ExchangeType::Topic);
        for (target, pattern) in patterns.iter().enumerate() {
            topic.bind(pattern.as_bytes(), &FieldTable::default(), target as u32);
        }
        let mut expected = BTreeSet::new();
        for (target, pattern) in patterns.iter().enumerate() {
            if removed[target] {
                topic.unbind(pattern.as_bytes(), &FieldTable::default(), target as u32);
            } else if matches(&words(pattern), &words(&key)) {
                expected.insert(target as u32);
            }
        }
        prop_assert_eq!(routed(&topic, &key, None), expected);
    }
}
