//! Work that waits for a slow disk while the rest of the simulation goes on, in the same way in every run.
//!
//! The work has a thread of its own, but it and the simulation run alternately, never at the same time: before each
//! call to the disk the work says how long the call takes and stops; the simulation lets that much simulated time pass
//! and then has the work go on. The code between two calls takes no simulated time. Work that holds a lock during a
//! call to the disk shows as a simulation that hangs when it needs that lock.
use parking_lot::{Condvar, Mutex};
use std::cell::RefCell;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Work on a thread of its own, which runs only while the simulation waits in [`go_on`](Self::go_on).
pub struct Slow {
    turns: Arc<Turns>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    turn: Turn,
    /// True if the [`Slow`] was dropped before the work was done. Then all calls of the work fail at once.
    abandoned: bool,
}

/// Which of the two runs at the moment, and why.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Turn {
    /// The simulation; the work has not begun.
    #[default]
    Simulation,
    /// The simulation; the work waits until this much simulated time has passed.
    Waiting(Duration),
    /// The work.
    Work,
    /// The simulation; the work has ended.
    Done,
}

thread_local! {
    /// On the thread of some work: the turns that it shares with the simulation. On other threads: `None`.
    static TURNS: RefCell<Option<Arc<Turns>>> = const { RefCell::new(None) };
}

impl Slow {
    /// Creates work that begins with the first [`go_on`](Self::go_on).
    #[must_use]
    pub fn new(work: Box<dyn FnOnce() + Send>) -> Self {
        let turns = Arc::<Turns>::default();
        let of_work = turns.clone();
        let run = move || {
            let end = EndGuard(of_work.clone());
            of_work.wait();
            if !of_work.state.lock().abandoned {
                TURNS.with(|turns| *turns.borrow_mut() = Some(of_work.clone()));
                work();
            }
            drop(end);
        };
        Self { turns, thread: Some(std::thread::spawn(run)) }
    }

    /// Lets the work run until its next call to the disk. Returns how much simulated time that call takes; the caller
    /// lets it pass before it calls again. Returns `None` if the work is done.
    ///
    /// # Panics
    /// If the work has panicked.
    pub fn go_on(&mut self) -> Option<Duration> {
        let turn = {
            let mut state = self.turns.state.lock();
            state.turn = Turn::Work;
            self.turns.changed.notify_all();
            while state.turn == Turn::Work {
                self.turns.changed.wait(&mut state);
            }
            state.turn
        };
        if let Turn::Waiting(time) = turn {
            return Some(time);
        }
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended, "the work on a thread of its own has panicked");
        None
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        {
            let mut state = self.turns.state.lock();
            (state.abandoned, state.turn) = (true, Turn::Work);
            self.turns.changed.notify_all();
        }
        let _ = thread.join();
    }
}

impl Turns {
    /// Waits until it is the work's turn, or the work was abandoned.
    fn wait(&self) {
        let mut state = self.state.lock();
        while state.turn != Turn::Work && !state.abandoned {
            self.changed.wait(&mut state);
        }
    }
}

/// A guard that gives the turn back when the work ends, even by a panic.
struct EndGuard(Arc<Turns>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.state.lock().turn = Turn::Done;
        self.0.changed.notify_all();
    }
}

/// If the calling thread belongs to slow work, waits until `time` of simulated time has passed. Returns false if the
/// work was abandoned because the simulated process has ended; the call then has to fail. On other threads returns true
/// at once.
pub(super) fn pause(time: impl FnOnce() -> Duration) -> bool {
    let turns = TURNS.with(|turns| turns.borrow().clone());
    let Some(turns) = turns else { return true };
    if turns.state.lock().abandoned {
        return false;
    }
    let time = time();
    if time > Duration::ZERO {
        turns.state.lock().turn = Turn::Waiting(time);
        turns.changed.notify_all();
        turns.wait();
    }
    !turns.state.lock().abandoned
}
