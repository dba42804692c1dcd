//! Long answers in pieces: rows are read from the broker a few at a time and written as the client reads them, so that no
//! lock is held for long and no whole list lies in memory, however slow the client is.
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use hyper::body::Frame;
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// A pass through a collection of the broker, in order.
pub(crate) trait Walk: Send + Unpin + 'static {
    /// A reference to one element, cheap to keep.
    type Row: Send + Sync + Unpin;

    /// Returns the next rows, about [`BATCH`] of them and perhaps none; `None` at the end.
    fn rows(&mut self) -> Option<Vec<Self::Row>>;

    /// Returns the name by which lists are filtered.
    fn name<'r>(&self, row: &'r Self::Row) -> std::borrow::Cow<'r, str>;

    /// Returns the row as JSON, with figures of this moment; `None` if the element no longer exists.
    fn show(&self, row: &Self::Row) -> Option<Value>;
}

/// The source of the pieces of an answer.
pub(crate) trait Pieces: Send + Unpin + 'static {
    /// Makes the next piece; `None` after the last one.
    fn next(&mut self) -> Option<Vec<u8>>;
}

/// Answers 200 with `pieces`. A short answer is sent as a whole; each further piece of a long one is made under a permit of
/// `permits`.
pub(crate) async fn answer(permits: &Arc<Semaphore>, content_type: &'static str, mut pieces: impl Pieces) -> Response {
    let mut whole = Vec::new();
    let body = loop {
        match pieces.next() {
            None => break Body::from(whole),
            Some(piece) => whole.extend(piece),
        }
        if whole.len() > WHOLE_BYTES_MAX {
            let permits = PollSemaphore::new(permits.clone());
            break Body::new(LongBody { ready: Some((whole, None)), pieces, permits });
        }
        tokio::task::yield_now().await;
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The body of a long answer.
struct LongBody<P> {
    /// A piece to be sent, and the permit under which it was made. The permit is kept until the piece is sent, which happens
    /// only after other tasks have had a turn, so that few answers have a piece in memory at the same time.
    ready: Option<(Vec<u8>, Option<OwnedSemaphorePermit>)>,
    pieces: P,
    permits: PollSemaphore,
}

impl<P: Pieces> HttpBody for LongBody<P> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some((piece, permit)) = self.ready.take() {
            drop(permit);
            return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
        }
        let permit = ready!(self.permits.poll_acquire(context));
        let Some(piece) = self.pieces.next() else { return Poll::Ready(None) };
        self.ready = Some((piece, permit));
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// How many rows are read and written at a time: a few hundred microseconds of work.
pub(crate) const BATCH: usize = 64;
/// The longest answer in bytes that is sent as a whole.
const WHOLE_BYTES_MAX: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Waker;

    /// An endless list that counts the pieces it has made.
    struct Endless(Arc<AtomicUsize>);

    impl Pieces for Endless {
        fn next(&mut self) -> Option<Vec<u8>> {
            self.0.fetch_add(1, Relaxed);
            Some(vec![b' '; 10_000])
        }
    }

    #[tokio::test]
    async fn a_piece_is_made_when_it_is_read_and_other_tasks_get_a_turn_before_it_is_sent() {
        let made = Arc::new(AtomicUsize::new(0));
        let permits = Arc::new(Semaphore::new(1));
        let mut body = answer(&permits, "text/plain", Endless(made.clone())).await.into_body();
        let begun = made.load(Relaxed);
        assert!(begun * 10_000 <= WHOLE_BYTES_MAX + 10_000, "{begun}");
        let mut context = Context::from_waker(Waker::noop());
        for taken in 0..5 {
            assert_eq!(made.load(Relaxed), begun + taken);
            assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
            assert!(Pin::new(&mut body).poll_frame(&mut context).is_pending());
        }
    }

    #[tokio::test]
    async fn without_a_free_permit_a_piece_is_not_made_until_another_answer_has_sent_its_own() {
        let (made, permits) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(1)));
        let mut first = answer(&permits, "text/plain", Endless(made.clone())).await.into_body();
        let mut second = answer(&permits, "text/plain", Endless(made.clone())).await.into_body();
        let mut context = Context::from_waker(Waker::noop());
        for body in [&mut first, &mut second] {
            assert!(Pin::new(body).poll_frame(&mut context).is_ready());
        }
        let begun = made.load(Relaxed);
        for body in [&mut first, &mut second] {
            assert!(Pin::new(body).poll_frame(&mut context).is_pending());
        }
        assert_eq!(made.load(Relaxed), begun + 1);
        assert!(Pin::new(&mut first).poll_frame(&mut context).is_ready());
        assert!(Pin::new(&mut second).poll_frame(&mut context).is_pending());
        assert_eq!(made.load(Relaxed), begun + 2);
        assert!(Pin::new(&mut first).poll_frame(&mut context).is_pending());
        drop(second);
        assert!(Pin::new(&mut first).poll_frame(&mut context).is_pending());
        assert_eq!(made.load(Relaxed), begun + 3, "a dropped answer releases its permit");
    }
}
