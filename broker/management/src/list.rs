//! Lists with RabbitMQ's query parameters: `columns`, `sort`, `sort_reverse`, and pages with `page`, `page_size`, `name`,
//! `use_regex`.
//!
//! An unsorted list is written to the client while it is read from the broker, and a page keeps only its own rows in memory.
//! A sorted list lies in memory as a whole, as rows and their sort keys. So only a few are sorted at a time (`request` takes
//! the permit), and only a few are kept for clients that read them slowly.
use crate::api::Api;
use crate::error::ApiError;
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

/// The decoded parameters of a request's query, in order.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn get(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// Returns all values of a parameter that may be given several times.
    pub(crate) fn all<'q>(&'q self, name: &str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Returns whether a flag is given as `true`.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// Returns whether the list has to be sorted or reversed.
    fn sorts(&self) -> bool {
        self.text("sort").is_some() || self.is_true("sort_reverse")
    }

    /// Returns the value of a parameter if it is given and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Returns the object reduced to the `columns` that are asked for, or all of it if none are.
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
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        let axum::extract::Query(query) = query.map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(Self(query))
    }
}

/// Returns whether a request asks for a sorted or reversed list.
pub(crate) fn is_sorted(uri: &Uri) -> bool {
    axum::extract::Query::try_from_uri(uri).is_ok_and(|axum::extract::Query(query)| Query(query).sorts())
}

/// The page of a list that is asked for.
struct Page {
    number: usize,
    size: usize,
    filter: Filter,
}

impl Page {
    fn of(query: &Query) -> Result<Option<Self>, ApiError> {
        let Some(page) = query.get("page") else { return Ok(None) };
        let parse = |text: &str| text.parse::<i64>();
        let (Ok(number), Ok(size)) = (parse(page), query.get("page_size").map_or(Ok(PAGE_SIZE), parse)) else {
            return Err(ApiError::bad_request("Pagination parameters are invalid"));
        };
        if number < 1 || !(1..=PAGE_SIZE_MAX).contains(&size) {
            let reason = format!("Invalid pagination parameters: page number {number}, page size {size}");
            return Err(ApiError::invalid("invalid_pagination_parameters", reason));
        }
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        Ok(Some(Self { number, size, filter: Filter::of(query)? }))
    }

    /// Returns the index of the page's first item among the filtered ones.
    fn first(&self) -> usize {
        (self.number - 1).saturating_mul(self.size)
    }

    fn show(&self, items: Vec<Value>, filtered: usize, total: usize) -> Result<Response, ApiError> {
        if self.first() > filtered {
            let (page, size) = (self.number, self.size);
            let reason = format!("Page out of range, page: {page} page size: {size}, len: {filtered}");
            return Err(ApiError::invalid("page_out_of_range", reason));
        }
        Ok(Json(json!({
            "filtered_count": filtered, "item_count": items.len(), "items": items, "page": self.number,
            "page_count": filtered.div_ceil(self.size), "page_size": self.size, "total_count": total,
        }))
        .into_response())
    }
}

/// The filter by name of a paged list. Letters match in either case.
enum Filter {
    All,
    Contains(String),
    Matches(regex::bytes::Regex),
}

impl Filter {
    fn of(query: &Query) -> Result<Self, ApiError> {
        let Some(name) = query.text("name") else { return Ok(Self::All) };
        if !query.is_true("use_regex") {
            return Ok(Self::Contains(name.to_lowercase()));
        }
        let pattern = regex::bytes::RegexBuilder::new(name)
            .case_insensitive(true)
            .unicode(false)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|error| {
                ApiError::bad_request(format!("name: '{name}' is not a valid regular expression: {error}"))
            })?;
        Ok(Self::Matches(pattern))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Contains(part) => name.to_lowercase().contains(part),
            Self::Matches(pattern) => pattern.is_match(name.as_bytes()),
        }
    }

    /// Returns how many names are compared before other tasks get a turn. A pattern may take a long time for each name.
    fn names_at_once(&self) -> usize {
        match self {
            Self::All | Self::Contains(_) => walk::BATCH,
            Self::Matches(_) => MATCHED_AT_ONCE,
        }
    }
}

/// Answers with the list that `walk` reads, filtered, sorted and paged as `query` asks.
///
/// # Errors
/// 400 for malformed numbers, pages beyond the end, and invalid patterns; 503 if too many sorted lists are in memory.
pub(crate) async fn answer<W: Walk>(api: &Api, walk: W, query: Query) -> Result<Response, ApiError> {
    let page = Page::of(&query)?;
    if query.sorts() {
        return sorted(api, walk, query, page).await;
    }
    match page {
        Some(page) => paged(walk, &query, &page).await,
        None => {
            let listing = ListBody { rows: UnsortedRows(walk), query, begun: false, ended: false };
            Ok(walk::answer(&api.piece_permits, JSON, listing).await)
        }
    }
}

async fn paged<W: Walk>(mut walk: W, query: &Query, page: &Page) -> Result<Response, ApiError> {
    let (mut total, mut filtered, mut items) = (0, 0, Vec::new());
    let wanted = page.first()..page.first().saturating_add(page.size);
    while let Some(rows) = walk.rows() {
        for few in rows.chunks(page.filter.names_at_once()) {
            for row in few {
                total += 1;
                if !page.filter.matches(&walk.name(row)) {
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

async fn sorted<W: Walk>(api: &Api, mut walk: W, query: Query, page: Option<Page>) -> Result<Response, ApiError> {
    let permit = match page {
        Some(_) => None,
        None => {
            let permit = api.sorted_list_permits.clone().try_acquire_owned();
            Some(permit.map_err(|_| ApiError::unavailable("too many sorted lists are waiting to be read"))?)
        }
    };
    let at_once = page.as_ref().map_or(walk::BATCH, |page| page.filter.names_at_once());
    let (mut total, mut kept) = (0, Vec::new());
    while let Some(rows) = walk.rows() {
        for row in rows {
            total += 1;
            if page.as_ref().is_some_and(|page| !page.filter.matches(&walk.name(&row))) {
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
    .map_err(|_| ApiError::internal())?;
    let Some(page) = page else {
        rows.reverse();
        let rows = SortedRows { walk, reversed: rows, _permit: permit };
        return Ok(walk::answer(&api.piece_permits, JSON, ListBody { rows, query, begun: false, ended: false }).await);
    };
    let filtered = rows.len();
    let wanted = rows.into_iter().skip(page.first()).take(page.size);
    let items = wanted.filter_map(|row| walk.show(&row)).map(|item| query.pick(item)).collect();
    page.show(items, filtered, total)
}

/// The value that a row is sorted by, ordered as in RabbitMQ: numbers before booleans before strings. A missing value
/// counts as 0.
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

/// A source of rows as JSON values.
trait Rows: Send + Unpin + 'static {
    /// Returns the next rows, perhaps none of them; `None` at the end.
    fn next(&mut self) -> Option<Vec<Value>>;
}

/// The rows of a walk in the order in which the broker has them.
struct UnsortedRows<W>(W);

impl<W: Walk> Rows for UnsortedRows<W> {
    fn next(&mut self) -> Option<Vec<Value>> {
        let rows = self.0.rows()?;
        Some(rows.iter().filter_map(|row| self.0.show(row)).collect())
    }
}

/// A sorted list in memory.
struct SortedRows<W: Walk> {
    walk: W,
    /// The rows that are not written yet, the next one at the end.
    reversed: Vec<W::Row>,
    /// Released when the client has read the whole list.
    _permit: Option<OwnedSemaphorePermit>,
}

impl<W: Walk> Rows for SortedRows<W> {
    fn next(&mut self) -> Option<Vec<Value>> {
        if self.reversed.is_empty() {
            return None;
        }
        let rows = self.reversed.split_off(self.reversed.len().saturating_sub(walk::BATCH));
        Some(rows.iter().rev().filter_map(|row| self.walk.show(row)).collect())
    }
}

/// The answer with a whole list: rows written as a JSON array.
struct ListBody<S> {
    rows: S,
    query: Query,
    begun: bool,
    ended: bool,
}

impl<S: Rows> Pieces for ListBody<S> {
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

/// Wraps a name that a row has already, for [`Walk::name`].
pub(crate) fn named(name: &str) -> Cow<'_, str> {
    Cow::Borrowed(name)
}

pub(crate) const JSON: &str = "application/json";
/// The number of items per page if the request does not give `page_size`.
const PAGE_SIZE: i64 = 100;
/// The most items per page, as in RabbitMQ.
const PAGE_SIZE_MAX: i64 = 500;
/// How many of the requested columns are honoured.
const COLUMNS_MAX: usize = 100;
/// The largest size of a compiled pattern in bytes.
const PATTERN_BYTES_MAX: usize = 32 << 10;
/// How many names a pattern is compared with in one turn: about a millisecond with the most costly pattern.
const MATCHED_AT_ONCE: usize = 4;
/// The typical size of a row in JSON, in bytes.
const ROW_BYTES: usize = 800;

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    /// A walk that returns all names in one batch.
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
    fn large_patterns_are_refused_and_other_tasks_get_a_turn_after_a_few_names() {
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
