//! Promise: no task panics. Panics that the runtime catches count as well.
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// The panics on this thread since the life began; `None` while there is no life.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Plays a life with `live`.
///
/// # Errors
/// The error of `live`, or the first panic of any of its tasks.
pub(crate) fn watched<T>(live: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let kept =
                PANICS.with_borrow_mut(|panics| panics.as_mut().map(|panics| panics.push(panic.to_string())).is_some());
            if !kept {
                before(panic);
            }
        }));
    });
    PANICS.set(Some(Vec::new()));
    let lived = catch_unwind(AssertUnwindSafe(live));
    let panics = PANICS.take().unwrap_or_default();
    match (panics.first(), lived) {
        (Some(first), _) => Err(format!("a task panicked: {first}")),
        (None, Ok(lived)) => lived,
        (None, Err(_)) => Err("a task panicked without calling the panic hook".to_owned()),
    }
}
