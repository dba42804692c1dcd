//! Work that waits for a slow disk while everything else goes on, and does so alike every time.
//!
//! The work has a thread of its own, but it and the simulation run in turns, never both: before a call to the disk the work
//! says how long the call takes and stops; the simulation lets that much of its time pass and has the work go on. What lies
//! between two calls happens at once. Whoever holds a lock at a call to the disk is found out: the simulation stands still.
use parking_lot::{Condvar, Mutex};
use std::cell::RefCell;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Work on a thread of its own, which goes on when it is told to.
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
    /// Nobody waits for the work any more: calls take no time from here on.
    abandoned: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Turn {
    /// The simulation's, until this much of its time has passed.
    #[default]
    Simulation,
    Rests(Duration),
    Work,
    Done,
}

thread_local! {
    /// Of the thread of some work.
    static TURNS: RefCell<Option<Arc<Turns>>> = const { RefCell::new(None) };
}

impl Slow {
    /// Work that begins with the first [`go_on`](Self::go_on).
    #[must_use]
    pub fn new(work: Box<dyn FnOnce() + Send>) -> Self {
        let turns = Arc::<Turns>::default();
        let of_work = turns.clone();
        let run = move || {
            let end = End(of_work.clone());
            of_work.wait();
            if !of_work.state.lock().abandoned {
                TURNS.with(|turns| *turns.borrow_mut() = Some(of_work.clone()));
                work();
            }
            drop(end);
        };
        Self { turns, thread: Some(std::thread::spawn(run)) }
    }

    /// Has the work go on until it waits for the disk: for how long. None: it is done.
    ///
    /// # Panics
    /// If the work does.
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
        if let Turn::Rests(time) = turn {
            return Some(time);
        }
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended, "what ran beside the node panicked");
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
    /// Waits until it is the work's turn.
    fn wait(&self) {
        let mut state = self.state.lock();
        while state.turn != Turn::Work && !state.abandoned {
            self.changed.wait(&mut state);
        }
    }
}

/// The work has ended, however that came.
struct End(Arc<Turns>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.state.lock().turn = Turn::Done;
        self.0.changed.notify_all();
    }
}

/// A call takes `time`, if it is made by such work. False if nobody waits for the work any more: the process has ended.
pub(super) fn takes(time: impl FnOnce() -> Duration) -> bool {
    let turns = TURNS.with(|turns| turns.borrow().clone());
    let Some(turns) = turns else { return true };
    if turns.state.lock().abandoned {
        return false;
    }
    let time = time();
    if time > Duration::ZERO {
        turns.state.lock().turn = Turn::Rests(time);
        turns.changed.notify_all();
        turns.wait();
    }
    !turns.state.lock().abandoned
}
