//! Lists as clients ask for them: `columns`, `sort`, `sort_reverse`, and pages with `page`, `page_size`, `name`,
//! `use_regex`.
use crate::error::Error;
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::HashMap;

/// The query of a request.
pub(crate) type Query = HashMap<String, String>;

/// Shapes a list as `query` asks.
///
/// # Errors
/// 400 for numbers that are none, pages that are not there, and patterns that are malformed.
pub(crate) fn shape(mut items: Vec<Value>, query: &Query) -> Result<Value, Error> {
    let total = items.len();
    if let Some(name) = query.get("name").filter(|name| !name.is_empty()) {
        let matches: Box<dyn Fn(&str) -> bool> = if is_true(query, "use_regex") {
            let pattern = regex::Regex::new(name)
                .map_err(|error| Error::bad_request(format!("name: '{name}' is no regular expression: {error}")))?;
            Box::new(move |text| pattern.is_match(text))
        } else {
            Box::new(move |text| text.contains(&**name))
        };
        items.retain(|item| item["name"].as_str().is_some_and(&matches));
    }
    if let Some(sort) = query.get("sort") {
        items.sort_by(|a, b| compare(column(a, sort), column(b, sort)));
        if is_true(query, "sort_reverse") {
            items.reverse();
        }
    }
    let Some(page) = query.get("page") else {
        return Ok(items.into_iter().map(|item| columns(item, query)).collect());
    };
    let page = number("page", page)?;
    let size = query.get("page_size").map_or(Ok(100), |size| number("page_size", size))?.min(PAGE_MAX);
    let filtered = items.len();
    let pages = filtered.div_ceil(size).max(1);
    if page > pages {
        return Err(Error::bad_request(format!("page out of range, page: {page}, page size: {size}, pages: {pages}")));
    }
    let items: Vec<_> = items.into_iter().skip((page - 1) * size).take(size).map(|item| columns(item, query)).collect();
    Ok(json!({
        "filtered_count": filtered, "item_count": items.len(), "items": items, "page": page, "page_count": pages,
        "page_size": size, "total_count": total,
    }))
}

/// One item with the columns that `query` asks for.
pub(crate) fn columns(item: Value, query: &Query) -> Value {
    let Some(wanted) = query.get("columns") else { return item };
    let mut kept = json!({});
    for path in wanted.split(',') {
        let value = column(&item, path);
        if value.is_null() {
            continue;
        }
        let mut place = &mut kept;
        for part in path.split('.') {
            place = &mut place[part];
        }
        *place = value.clone();
    }
    kept
}

fn column<'a>(item: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(item, |item, part| &item[part])
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.to_string().cmp(&b.to_string()),
    }
}

/// Whether a flag of the query is set.
pub(crate) fn is_true(query: &Query, name: &str) -> bool {
    query.get(name).is_some_and(|value| value == "true")
}

fn number(name: &str, text: &str) -> Result<usize, Error> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Error::bad_request(format!("{name}: '{text}' is no number from 1 on"))),
    }
}

/// Items a page: RabbitMQ's limit.
const PAGE_MAX: usize = 500;
