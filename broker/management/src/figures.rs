//! The figures of queues, as the other nodes of the cluster know them. They are asked for when a client looks at queues, and
//! kept for a moment, so that many requests at once ask the others once.
use leveret_node::{Broker, FiguresElsewhere, Queue, QueueFigures};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The figures that the other nodes told last.
#[derive(Default)]
pub(crate) struct KnownFigures(Mutex<Option<(Instant, Arc<FiguresElsewhere>)>>);

impl KnownFigures {
    /// Returns the figures of all queues as the other nodes know them, at most [`FRESH_FOR`] old.
    pub(crate) async fn elsewhere(&self, broker: &Broker) -> Arc<FiguresElsewhere> {
        let mut known = self.0.lock().await;
        if let Some((at, figures)) = &*known
            && at.elapsed() < FRESH_FOR
        {
            return figures.clone();
        }
        let figures = Arc::new(broker.figures_elsewhere().await);
        *known = Some((Instant::now(), figures.clone()));
        figures
    }
}

/// Returns the figures of a queue as all nodes know them.
pub(crate) fn figures_of(broker: &Broker, elsewhere: &FiguresElsewhere, queue: &Queue) -> QueueFigures {
    broker.figures_here(queue).and(elsewhere.get(&queue.id).copied().unwrap_or_default())
}

/// The longest time for which figures are used again.
const FRESH_FOR: Duration = Duration::from_secs(1);
