//! Long answers in pieces: rows are read from the broker a few at a time and written as the client takes them, so that
//! neither a lock is held for long nor a whole list lies in memory, however slow the client.
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

/// Walks through a collection, in order.
pub(crate) trait Walk: Send + Unpin + 'static {
    /// One of the collection, cheap to keep.
    type Row: Send + Sync + Unpin;

    /// The next rows, about `BATCH` of them and perhaps none; or that there are no more.
    fn rows(&mut self) -> Option<Vec<Self::Row>>;

    /// The name that a list is filtered by.
    fn name<'r>(&self, row: &'r Self::Row) -> std::borrow::Cow<'r, str>;

    /// A row as it is shown; none if it is gone.
    fn show(&self, row: &Self::Row) -> Option<Value>;
}

/// Makes the pieces of an answer, one after the other; none after the last.
pub(crate) trait Pieces: Send + Unpin + 'static {
    fn next(&mut self) -> Option<Vec<u8>>;
}

/// Answers 200 with `pieces`. A short answer is sent whole; of a long one, each piece takes a turn of `making`.
pub(crate) async fn answer(making: &Arc<Semaphore>, content_type: &'static str, mut pieces: impl Pieces) -> Response {
    let mut whole = Vec::new();
    let body = loop {
        match pieces.next() {
            None => break Body::from(whole),
            Some(piece) => whole.extend(piece),
        }
        if whole.len() > WHOLE_BYTES_MAX {
            let turns = PollSemaphore::new(making.clone());
            break Body::new(InPieces { made: Some((whole, None)), pieces, turns });
        }
        tokio::task::yield_now().await;
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The body of a long answer.
struct InPieces<P> {
    /// A piece to be sent, and the turn it was made in. Others are served before it is sent, and as long as it has its turn
    /// few others make pieces.
    made: Option<(Vec<u8>, Option<OwnedSemaphorePermit>)>,
    pieces: P,
    turns: PollSemaphore,
}

impl<P: Pieces> HttpBody for InPieces<P> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some((piece, turn)) = self.made.take() {
            drop(turn);
            return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
        }
        let turn = ready!(self.turns.poll_acquire(context));
        let Some(piece) = self.pieces.next() else { return Poll::Ready(None) };
        self.made = Some((piece, turn));
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Rows read and shown at a time: some hundred microseconds of work.
pub(crate) const BATCH: usize = 64;
/// The longest answer that is sent whole, in bytes.
const WHOLE_BYTES_MAX: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Waker;

    /// A list without an end, that counts its pieces.
    struct Endless(Arc<AtomicUsize>);

    impl Pieces for Endless {
        fn next(&mut self) -> Option<Vec<u8>> {
            self.0.fetch_add(1, Relaxed);
            Some(vec![b' '; 10_000])
        }
    }

    #[tokio::test]
    async fn pieces_are_made_when_they_are_taken_and_others_have_their_turn_between_two() {
        let made = Arc::new(AtomicUsize::new(0));
        let making = Arc::new(Semaphore::new(1));
        let mut body = answer(&making, "text/plain", Endless(made.clone())).await.into_body();
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
    async fn a_piece_waits_until_those_of_others_are_on_their_way() {
        let (made, making) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(1)));
        let mut first = answer(&making, "text/plain", Endless(made.clone())).await.into_body();
        let mut second = answer(&making, "text/plain", Endless(made.clone())).await.into_body();
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
        assert_eq!(made.load(Relaxed), begun + 3, "who goes gives the turn back");
    }
}
