//! No task dies alone: a panic anywhere in a life breaks it, also one that the runtime swallowed.
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Panics on this thread since the life began; none while there is no life.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Lives a life.
///
/// # Errors
/// It panicked, or a task of it did.
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
        (Some(first), _) => Err(format!("something panicked: {first}")),
        (None, Ok(lived)) => lived,
        (None, Err(_)) => Err("something panicked without a word".to_owned()),
    }
}
