//! Routing by each exchange type, and the topic trie compared with a simple matcher.
use super::*;
use leveret_model::table::FieldValue;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn routed(router: &Router<u32>, key: &str, headers: Option<&FieldTable>) -> BTreeSet<u32> {
    cost(router, key, headers).0
}

/// Returns the targets that are found, and the number of steps that finding them took.
fn cost(router: &Router<u32>, key: &str, headers: Option<&FieldTable>) -> (BTreeSet<u32>, u64) {
    let (mut found, mut steps) = (BTreeSet::new(), Steps::for_a_message());
    let routed = router.route(&[key.as_bytes()], &SentHeaders::new(headers), &mut steps, &mut |target| {
        found.insert(target);
    });
    routed.unwrap();
    (found, steps.spent())
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
}

#[test]
fn patterns_with_many_wildcards_cost_no_more_than_others() {
    let none = FieldTable::default();
    let mut topic = Router::new(ExchangeType::Topic);
    // Patterns that all match, in every possible way: `#` between and around the words of the key.
    let words: Vec<String> = (0..127).map(|at| char::from(b'a' + at % 26).to_string()).collect();
    let mut nodes = 0;
    for target in 0..2_000u32 {
        let word = |at: u32| &*words[(target / 26u32.pow(at) % 26) as usize];
        let pattern = format!("#.{}.#.{}.#.{}.#.*.#.*.#.*.#.*.#", word(0), word(1), word(2));
        nodes += pattern.split('.').count() as u64;
        topic.bind(pattern.as_bytes(), &none, target);
    }
    let (found, steps) = cost(&topic, &words.join("."), None);
    assert_eq!(found.len(), 2_000);
    assert!(steps <= 8 * nodes, "{steps} steps for {nodes} nodes");
    let dots = ".".repeat(255);
    let (_, steps) = cost(&topic, &dots, None);
    assert!(steps <= 8 * nodes, "{steps} steps for {nodes} nodes");
    // Several `#` in a row count as one.
    let mut hashes = Router::new(ExchangeType::Topic);
    hashes.bind("#.".repeat(127).as_bytes(), &none, 1);
    hashes.bind(["#"; 128].join(".").as_bytes(), &none, 2);
    assert_eq!(cost(&hashes, &dots, None), ([1, 2].into(), 4 * 256 + 3 * 4 + 2));
}

#[test]
fn the_number_of_bindings_compared_with_a_message_is_bounded() {
    let mut headers = Router::new(ExchangeType::Headers);
    for target in 0..1_000u32 {
        let arguments = (0..1_000).map(|at| (format!("a{at}"), FieldValue::Int32(target as i32))).collect();
        headers.bind(b"", &arguments, target);
    }
    let routed = headers.route(&[b""], &SentHeaders::new(None), &mut Steps::for_a_message(), &mut |_| {});
    assert_eq!(routed, Err(TooManySteps));
}

#[test]
fn sorting_headers_and_looking_up_words_cost_steps() {
    let sent: FieldTable = (0..5_000).map(|at| (format!("h{at}"), FieldValue::Int32(at))).collect();
    let (sent, mut steps) = (SentHeaders::new(Some(&sent)), Steps::for_a_message());
    let empty = Router::<u32>::new(ExchangeType::Headers);
    let mut bound = Router::new(ExchangeType::Headers);
    bound.bind(b"", &FieldTable::from_iter([("h7", FieldValue::Int32(7))]), 1);
    empty.route(&[b""], &sent, &mut steps, &mut |_| {}).unwrap();
    assert_eq!(steps.spent(), 1, "nothing is compared");
    bound.route(&[b""], &sent, &mut steps, &mut |_| {}).unwrap();
    let first = steps.spent();
    assert!(first > 4 * 5_000, "{first}");
    bound.route(&[b""], &sent, &mut steps, &mut |_| {}).unwrap();
    assert!(steps.spent() - first < 20, "{} after {first}", steps.spent());

    let mut topic = Router::new(ExchangeType::Topic);
    topic.bind(b"a", &FieldTable::default(), 1);
    let (_, steps) = cost(&topic, &".".repeat(255), None);
    assert!(steps >= 4 * 256, "{steps}");
    assert!(cost(&topic, "a", None).1 < 20);
}

#[test]
fn numbers_in_headers_are_compared_by_value() {
    let equal = |sent: FieldValue, wanted: FieldValue| {
        let mut headers = Router::new(ExchangeType::Headers);
        headers.bind(b"", &FieldTable::from_iter([("n", wanted)]), 1);
        !routed(&headers, "", Some(&FieldTable::from_iter([("n", sent)]))).is_empty()
    };
    assert!(equal(FieldValue::Float(0.5), FieldValue::Double(0.5)));
    assert!(equal(FieldValue::Double(0.5), FieldValue::Float(0.5)));
    assert!(!equal(FieldValue::Float(0.1), FieldValue::Double(0.1)), "these are different numbers");
    assert!(equal(FieldValue::Int32(1), FieldValue::Double(1.0)));
    assert!(equal(FieldValue::Float(-2.0), FieldValue::Int8(-2)));
    assert!(!equal(FieldValue::Double(1.5), FieldValue::Int32(1)));
    assert!(!equal(FieldValue::Double(9_007_199_254_740_992.0), FieldValue::Int64(9_007_199_254_740_993)));
    assert!(!equal(FieldValue::Double(f64::NAN), FieldValue::Int32(0)));
    assert!(!equal(FieldValue::Double(1.0), "1".into()));
}

#[test]
fn targets_of_many_bindings_are_removed_in_any_order() {
    const TARGETS: u32 = 20_000;
    let none = FieldTable::default();
    let some = FieldTable::from_iter([("a", FieldValue::Int32(1))]);
    let kinds = [ExchangeType::Direct, ExchangeType::Fanout, ExchangeType::Topic, ExchangeType::Headers];
    for (kind, arguments) in kinds.into_iter().zip([&none, &none, &none, &some]) {
        let mut router = Router::new(kind);
        (0..TARGETS).for_each(|target| router.bind(b"k", arguments, target));
        router.bind(b"k", arguments, 7);
        router.unbind(b"k", arguments, 7);
        assert_eq!(routed(&router, "k", Some(&some)).len(), TARGETS as usize, "{kind}");
        (0..TARGETS).for_each(|target| router.unbind(b"k", arguments, target));
        assert!(routed(&router, "k", Some(&some)).is_empty(), "{kind}");
    }
}

/// For a key with this many words the walk uses more than one machine word of bits.
#[test]
fn long_keys_match_like_short_ones() {
    let key = ["a"; 100].join(".");
    for (pattern, expected) in [
        ("#".to_owned(), true),
        (key.clone(), true),
        (["*"; 100].join("."), true),
        (["*"; 99].join("."), false),
        (["*"; 101].join("."), false),
        (format!("{}.#", ["a"; 100].join(".")), true),
        (format!("#.{}", ["a"; 101].join(".")), false),
        ("#.a.#.b.#".to_owned(), false),
    ] {
        let mut topic = Router::new(ExchangeType::Topic);
        topic.bind(pattern.as_bytes(), &FieldTable::default(), 1);
        assert_eq!(!routed(&topic, &key, None).is_empty(), expected, "{pattern}");
    }
}

#[test]
fn headers_by_all_and_any() {
    let table = |entries: &[(&str, FieldValue)]| entries.iter().cloned().collect::<FieldTable>();
    // As many headers as are sorted; the first value of a name counts.
    let mut many: Vec<_> =
        [("a", "1".into()), ("n", FieldValue::Int32(7)), ("x-y", "z".into()), ("a", "2".into())].into();
    many.resize(20, ("other", FieldValue::Void));
    let many = table(&many);
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
        assert_eq!(!routed(&headers, "", Some(&many)).is_empty(), expected, "{arguments:?}");
    }
    assert!(check_headers_binding(&table(&[("x-match", "some".into())])).is_err());
}

/// Returns whether a pattern matches, word by word, as the specification defines it.
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
    fn the_trie_matches_like_the_specification(
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
