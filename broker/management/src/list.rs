//! Lists as clients ask for them: `columns`, `sort`, `sort_reverse`, and pages with `page`, `page_size`, `name`,
//! `use_regex`.
//!
//! What is not sorted is written while it is read. A page keeps its own rows alone. A sorted list is kept whole, as rows
//! and the values that they are sorted by: few of these are made at a time, in a turn that `request` takes, and few are kept
//! for clients that read them slowly.
use crate::api::Api;
use crate::error::Error;
use crate::walk::{self, Pieces, Walk};
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cmp::Ordering;
use tokio::sync::OwnedSemaphorePermit;

/// The query of a request.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// The values of a parameter that may be there several times.
    pub(crate) fn all<'q>(&'q self, name: &str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Whether a flag is set.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// Whether a list is wanted in another order than it is found in.
    fn sorts(&self) -> bool {
        self.text("sort").is_some() || self.is_true("sort_reverse")
    }

    /// A parameter that is there and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// One object with the columns that are asked for.
    pub(crate) fn pick(&self, item: Value) -> Value {
        let Some(wanted) = self.get("columns") else { return item };
        let mut kept = json!({});
        for path in wanted.split(',').take(COLUMNS_MAX) {
            let value = column(&item, path);
            if value.is_null() {
                continue;
            }
            let mut place = &mut kept;
            for part in path.split('.') {
                if !place.is_object() {
                    *place = json!({});
                }
                place = &mut place[part];
            }
            *place = value.clone();
        }
        kept
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        let axum::extract::Query(query) = query.map_err(|error| Error::bad_request(error.to_string()))?;
        Ok(Self(query))
    }
}

/// Whether a request asks for a sorted list.
pub(crate) fn is_sorted(uri: &Uri) -> bool {
    axum::extract::Query::try_from_uri(uri).is_ok_and(|axum::extract::Query(query)| Query(query).sorts())
}

/// Which page is asked for.
struct Page {
    number: usize,
    size: usize,
    filter: Filter,
}

impl Page {
    fn of(query: &Query) -> Result<Option<Self>, Error> {
        let Some(page) = query.get("page") else { return Ok(None) };
        let parse = |text: &str| text.parse::<i64>();
        let (Ok(number), Ok(size)) = (parse(page), query.get("page_size").map_or(Ok(PAGE_SIZE), parse)) else {
            return Err(Error::bad_request("Pagination parameters are invalid"));
        };
        if number < 1 || !(1..=PAGE_SIZE_MAX).contains(&size) {
            let reason = format!("Invalid pagination parameters: page number {number}, page size {size}");
            return Err(Error::invalid("invalid_pagination_parameters", reason));
        }
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        Ok(Some(Self { number, size, filter: Filter::of(query)? }))
    }

    /// Index of the first item.
    fn first(&self) -> usize {
        (self.number - 1).saturating_mul(self.size)
    }

    fn show(&self, items: Vec<Value>, filtered: usize, total: usize) -> Result<Response, Error> {
        if self.first() > filtered {
            let (page, size) = (self.number, self.size);
            let reason = format!("Page out of range, page: {page} page size: {size}, len: {filtered}");
            return Err(Error::invalid("page_out_of_range", reason));
        }
        Ok(Json(json!({
            "filtered_count": filtered, "item_count": items.len(), "items": items, "page": self.number,
            "page_count": filtered.div_ceil(self.size), "page_size": self.size, "total_count": total,
        }))
        .into_response())
    }
}

/// Which names a page is of. Capital letters or small ones: it makes no difference.
enum Filter {
    All,
    Contains(String),
    Matches(regex::bytes::Regex),
}

impl Filter {
    fn of(query: &Query) -> Result<Self, Error> {
        let Some(name) = query.text("name") else { return Ok(Self::All) };
        if !query.is_true("use_regex") {
            return Ok(Self::Contains(name.to_lowercase()));
        }
        let pattern = regex::bytes::RegexBuilder::new(name)
            .case_insensitive(true)
            .unicode(false)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|error| Error::bad_request(format!("name: '{name}' is no regular expression: {error}")))?;
        Ok(Self::Matches(pattern))
    }

    fn takes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Contains(part) => name.to_lowercase().contains(part),
            Self::Matches(pattern) => pattern.is_match(name.as_bytes()),
        }
    }

    /// How many names are looked at before others have their turn. A pattern may take a long time for each.
    fn names_at_once(&self) -> usize {
        match self {
            Self::All | Self::Contains(_) => walk::BATCH,
            Self::Matches(_) => MATCHED_AT_ONCE,
        }
    }
}

/// Answers with the list that `walk` leads through, as `query` asks.
///
/// # Errors
/// 400 for numbers that are none, pages that are not there, and patterns that are malformed.
pub(crate) async fn answer<W: Walk>(api: &Api, walk: W, query: Query) -> Result<Response, Error> {
    let page = Page::of(&query)?;
    if query.sorts() {
        return sorted(api, walk, query, page).await;
    }
    match page {
        Some(page) => paged(walk, &query, &page).await,
        None => {
            Ok(walk::answer(&api.making, JSON, Listing { rows: Walked(walk), query, begun: false, ended: false }).await)
        }
    }
}

async fn paged<W: Walk>(mut walk: W, query: &Query, page: &Page) -> Result<Response, Error> {
    let (mut total, mut filtered, mut items) = (0, 0, Vec::new());
    let wanted = page.first()..page.first().saturating_add(page.size);
    while let Some(rows) = walk.rows() {
        for few in rows.chunks(page.filter.names_at_once()) {
            for row in few {
                total += 1;
                if !page.filter.takes(&walk.name(row)) {
                    continue;
                }
                if wanted.contains(&filtered) {
                    items.extend(walk.show(row).map(|item| query.pick(item)));
                }
                filtered += 1;
            }
            tokio::task::yield_now().await;
        }
    }
    page.show(items, filtered, total)
}

async fn sorted<W: Walk>(api: &Api, mut walk: W, query: Query, page: Option<Page>) -> Result<Response, Error> {
    let kept_whole = match page {
        Some(_) => None,
        None => {
            let room = api.kept.clone().try_acquire_owned();
            Some(room.map_err(|_| Error::unavailable("too many sorted lists are waiting to be read"))?)
        }
    };
    let at_once = page.as_ref().map_or(walk::BATCH, |page| page.filter.names_at_once());
    let (mut total, mut kept) = (0, Vec::new());
    while let Some(rows) = walk.rows() {
        for row in rows {
            total += 1;
            if page.as_ref().is_some_and(|page| !page.filter.takes(&walk.name(&row))) {
                continue;
            }
            let key = match query.text("sort") {
                Some(sort) => walk.show(&row).map(|item| Key::of(column(&item, sort))),
                None => Some(Key::of(&Value::Null)),
            };
            kept.extend(key.map(|key| (key, row)));
            if total % at_once == 0 {
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await;
    }
    let reverse = query.is_true("sort_reverse");
    let mut rows = tokio::task::spawn_blocking(move || {
        kept.sort_by(|(a, _), (b, _)| a.cmp(b));
        if reverse {
            kept.reverse();
        }
        kept.into_iter().map(|(_, row)| row).collect::<Vec<_>>()
    })
    .await
    .map_err(|_| Error::internal())?;
    let Some(page) = page else {
        rows.reverse();
        let rows = Kept { walk, reversed: rows, _room: kept_whole };
        return Ok(walk::answer(&api.making, JSON, Listing { rows, query, begun: false, ended: false }).await);
    };
    let filtered = rows.len();
    let wanted = rows.into_iter().skip(page.first()).take(page.size);
    let items = wanted.filter_map(|row| walk.show(&row)).map(|item| query.pick(item)).collect();
    page.show(items, filtered, total)
}

/// Values of a column in the order of RabbitMQ: numbers, flags, texts; what is not there counts as 0.
#[derive(PartialEq)]
enum Key {
    Number(f64),
    Flag(bool),
    Text(String),
}

impl Key {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Number(0.0),
            Value::Bool(flag) => Self::Flag(*flag),
            Value::Number(number) => Self::Number(number.as_f64().unwrap_or(0.0)),
            Value::String(text) => Self::Text(text.clone()),
            other => Self::Text(other.to_string()),
        }
    }

    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Flag(a), Self::Flag(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Flag(_) => 1,
            Self::Text(_) => 2,
        }
    }
}

fn column<'a>(item: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(item, |item, part| &item[part])
}

/// Rows that are shown one after the other.
trait Shown: Send + Unpin + 'static {
    fn next(&mut self) -> Option<Vec<Value>>;
}

/// Rows as they are found.
struct Walked<W>(W);

impl<W: Walk> Shown for Walked<W> {
    fn next(&mut self) -> Option<Vec<Value>> {
        let rows = self.0.rows()?;
        Some(rows.iter().filter_map(|row| self.0.show(row)).collect())
    }
}

/// Rows that were sorted, the last first.
struct Kept<W: Walk> {
    walk: W,
    reversed: Vec<W::Row>,
    /// Given back when it has been read.
    _room: Option<OwnedSemaphorePermit>,
}

impl<W: Walk> Shown for Kept<W> {
    fn next(&mut self) -> Option<Vec<Value>> {
        if self.reversed.is_empty() {
            return None;
        }
        let rows = self.reversed.split_off(self.reversed.len().saturating_sub(walk::BATCH));
        Some(rows.iter().rev().filter_map(|row| self.walk.show(row)).collect())
    }
}

/// Rows as a JSON array.
struct Listing<S> {
    rows: S,
    query: Query,
    begun: bool,
    ended: bool,
}

impl<S: Shown> Pieces for Listing<S> {
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let Some(rows) = self.rows.next() else {
            self.ended = true;
            return Some(if self.begun { b"]".to_vec() } else { b"[]".to_vec() });
        };
        let mut piece = Vec::with_capacity(rows.len() * ROW_BYTES);
        for row in rows {
            piece.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            // Writing a value into memory cannot fail.
            let _ = serde_json::to_writer(&mut piece, &self.query.pick(row));
        }
        Some(piece)
    }
}

/// A name that is there already.
pub(crate) fn named(name: &str) -> Cow<'_, str> {
    Cow::Borrowed(name)
}

pub(crate) const JSON: &str = "application/json";
/// Items a page unless the request says.
const PAGE_SIZE: i64 = 100;
/// Items a page: RabbitMQ's limit.
const PAGE_SIZE_MAX: i64 = 500;
/// Columns that are looked at.
const COLUMNS_MAX: usize = 100;
/// Largest compiled pattern.
const PATTERN_BYTES_MAX: usize = 32 << 10;
/// Names that a pattern is compared with at once: about a millisecond with the most costly one.
const MATCHED_AT_ONCE: usize = 4;
/// What a row takes, about.
const ROW_BYTES: usize = 800;

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    /// Names, all in one batch.
    struct Names(Option<Vec<String>>);

    impl Walk for Names {
        type Row = String;

        fn rows(&mut self) -> Option<Vec<String>> {
            self.0.take()
        }

        fn name<'r>(&self, row: &'r String) -> Cow<'r, str> {
            named(row)
        }

        fn show(&self, row: &String) -> Option<Value> {
            Some(json!(row))
        }
    }

    fn query(of: &[(&str, &str)]) -> Query {
        Query(of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn patterns_are_small_and_others_have_their_turn_after_a_few_names() {
        let query = query(&[("page", "1"), ("use_regex", "true"), ("name", "(a|b)+c")]);
        let page = Page::of(&query).unwrap().unwrap();
        let names = Names(Some((0..64).map(|number| format!("ab{number}")).collect()));
        let mut paged = pin!(paged(names, &query, &page));
        let mut turns = 0;
        while paged.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            turns += 1;
        }
        assert!(turns >= 64 / MATCHED_AT_ONCE, "{turns}");
        for costly in ["(a|b|[^c]){400}", "(.{1,30}){30}", "(x?){5000}"] {
            let query = self::query(&[("page", "1"), ("use_regex", "true"), ("name", costly)]);
            assert!(Page::of(&query).is_err(), "{costly}");
        }
        for usual in ["^amq\\.gen-.*$", "orders\\.(eu|us|asia)\\.[a-z0-9_-]{1,60}", "\\d{1,9}(\\.\\w+)*"] {
            let query = self::query(&[("page", "1"), ("use_regex", "true"), ("name", usual)]);
            assert!(Page::of(&query).is_ok(), "{usual}");
        }
    }
}
