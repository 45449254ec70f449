//! Work that blocks, away from the async workers.

use std::panic::resume_unwind;

use tokio::task;

/// Does work that may take as long as a driver or a file system does. If it panics, that is the caller's panic too, and no
/// answer.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    task::spawn_blocking(work).await.unwrap_or_else(|error| {
        resume_unwind(error.try_into_panic().unwrap_or_else(|error| Box::new(error.to_string())))
    })
}

/// Does such work on a value, which is absent meanwhile. `None` when it is absent already.
pub(crate) async fn blocking_on<V: Send + 'static, T: Send + 'static>(
    place: &mut Option<V>,
    work: impl FnOnce(&mut V) -> T + Send + 'static,
) -> Option<T> {
    let mut value = place.take()?;
    let (outcome, value) = blocking(move || (work(&mut value), value)).await;
    *place = Some(value);
    Some(outcome)
}
