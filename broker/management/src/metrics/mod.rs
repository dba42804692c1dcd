//! The metrics for Prometheus. They are read from the live queues at each scrape, so a queue costs nothing in between.
//!
//! `/metrics` has the totals of the node, and series per queue while there are few queues. `/metrics/per-object` has the
//! series of all queues, and `/metrics/detailed?family=...` those families that are asked for, under the names that RabbitMQ
//! has there. Of several nodes each has its own share of the figures, so that their sum is that of the cluster: what a queue
//! has at this moment is told by the node that serves it, what was counted by all. Answers are written while the queues are
//! read. `families` lists the metrics, `text` writes the format.
mod families;
mod text;

use crate::api::Api;
use crate::error::ApiError;
use crate::list::Query;
use crate::routes::overview::totals_here;
use crate::routes::queues::LiveQueues;
use crate::walk::{self, Pieces};
use axum::extract::State;
use axum::response::Response;
use families::{DETAILED, Family, LEVERET, RABBITMQ, Scope};
use leveret_node::{Broker, Queue};
use std::sync::Arc;
use text::Text;

/// Answers with the metrics of the node, and with series per queue if there are few queues.
pub(crate) async fn scrape(State(api): State<Api>) -> Response {
    let named = few(&api).await;
    let mut text = Text::default();
    let totals = totals_here(&api).await;
    let shown = named.iter().flatten().filter(|queue| api.broker.serves(queue)).count();
    families::node(&api, &mut text);
    families::totals(&totals, Scope::All, &mut text);
    families::omitted(totals.queues.saturating_sub(shown), &mut text);
    let queues = ScrapedQueues::Few(named.unwrap_or_default());
    walk::answer(&api.piece_permits, text::CONTENT_TYPE, Series::new(&api, text, LEVERET.iter().collect(), queues))
        .await
}

/// Answers with the metrics of the node and with series of all queues.
pub(crate) async fn per_object(State(api): State<Api>) -> Response {
    let mut text = Text::default();
    let totals = totals_here(&api).await;
    families::node(&api, &mut text);
    families::totals(&totals, Scope::PerObject, &mut text);
    families::omitted(0, &mut text);
    let families = LEVERET.iter().chain(RABBITMQ).collect();
    let queues = ScrapedQueues::All { figures: LiveQueues::new(&api.broker), vhost: None };
    walk::answer(&api.piece_permits, text::CONTENT_TYPE, Series::new(&api, text, families, queues)).await
}

/// Answers with the families that are asked for, for the queues of one virtual host or of all.
pub(crate) async fn detailed(State(api): State<Api>, query: Query) -> Result<Response, ApiError> {
    let asked: Vec<&str> = query.all("family").collect();
    let families = DETAILED.iter().filter(|(family, _)| asked.contains(family)).map(|(_, family)| family);
    let queues =
        ScrapedQueues::All { figures: LiveQueues::new(&api.broker), vhost: query.text("vhost").map(Into::into) };
    let series = Series::new(&api, Text::default(), families.collect(), queues);
    Ok(walk::answer(&api.piece_permits, text::CONTENT_TYPE, series).await)
}

/// Returns the queues that clients have named; `None` if there are more than [`SERIES_QUEUES_MAX`].
async fn few(api: &Api) -> Option<Vec<Arc<Queue>>> {
    let (mut few, mut figures) = (Vec::new(), LiveQueues::new(&api.broker));
    while let Some(queues) = figures.next() {
        few.extend(queues.into_iter().filter(|queue| !queue.name.starts_with(SERVER_NAMED)));
        if few.len() > SERIES_QUEUES_MAX {
            return None;
        }
        tokio::task::yield_now().await;
    }
    Some(few)
}

/// The queues for which series are written.
enum ScrapedQueues {
    Few(Vec<Arc<Queue>>),
    All { figures: LiveQueues, vhost: Option<Box<str>> },
}

/// An answer with series: family by family, and within a family queue by queue, as the text format demands.
struct Series {
    broker: Broker,
    /// Lines that are not part of a piece yet.
    text: Text,
    /// The families that are not written in full yet.
    families: std::collections::VecDeque<&'static Family>,
    queues: ScrapedQueues,
    /// True once the head of the first family is written.
    begun: bool,
    /// For how many of [`ScrapedQueues::Few`] the first family is written.
    done: usize,
    ended: bool,
}

impl Series {
    fn new(api: &Api, text: Text, families: Vec<&'static Family>, queues: ScrapedQueues) -> Self {
        let ended = matches!(&queues, ScrapedQueues::Few(few) if few.is_empty());
        Self { broker: api.broker.clone(), text, families: families.into(), queues, begun: false, done: 0, ended }
    }

    /// Returns the queues for which the first family is to be written next; `None` if it is written for all of them.
    fn batch(&mut self) -> Option<Vec<Arc<Queue>>> {
        match &mut self.queues {
            ScrapedQueues::Few(few) => {
                let batch: Vec<_> = few.iter().skip(self.done).take(walk::BATCH).cloned().collect();
                self.done += batch.len();
                (!batch.is_empty()).then_some(batch)
            }
            ScrapedQueues::All { figures, vhost } => {
                let mut batch = figures.next()?;
                batch.retain(|queue| vhost.as_ref().is_none_or(|vhost| **vhost == *queue.vhost));
                Some(batch)
            }
        }
    }
}

impl Pieces for Series {
    fn next(&mut self) -> Option<Vec<u8>> {
        if let (Some(family), false) = (self.families.front().copied(), self.ended) {
            if !self.begun {
                family.head(&mut self.text);
                self.begun = true;
            }
            match self.batch() {
                Some(batch) => batch.iter().for_each(|queue| family.samples(&self.broker, queue, &mut self.text)),
                None => {
                    self.families.pop_front();
                    (self.begun, self.done) = (false, 0);
                    if let ScrapedQueues::All { figures, .. } = &mut self.queues {
                        figures.restart();
                    }
                }
            }
            return Some(self.text.take());
        }
        let rest = self.text.take();
        (!rest.is_empty()).then_some(rest)
    }
}

/// The most queues for which `/metrics` has series.
const SERIES_QUEUES_MAX: usize = 1000;
/// The prefix of the names that the server gives to queues.
const SERVER_NAMED: &str = "amq.gen-";
