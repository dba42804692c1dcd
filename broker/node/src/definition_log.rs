//! The commands that this node gives to the log of group 0, and the answers to them.
//!
//! A change of the definitions is asked for as a command. Every node carries it out when it applies the entry with it, and
//! the node that asked tells its caller what it came to. A command that is on its way is carried out whether or not its
//! caller still waits: a caller that is cancelled, times out or disconnects leaves nothing half done. Many commands share an
//! entry, and a sync.
//!
//! While this node is the only member of the group, its catalog is never behind, and a command that would change nothing
//! is answered at once. Without storage, commands are carried out at once.
use crate::Broker;
use crate::commands;
use crate::entry::{self, Row};
use crate::outbox::{Addition, Outbox};
use crate::outcome::{CommandOutcome, no_majority, overtaken, stopping};
use crate::storage::Storage;
use leveret_engine::catalog::{CatalogCommand, NodeRun};
use leveret_model::refusal::{Refusal, RefusalKind};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The commands of this start of the node.
pub(crate) struct DefinitionLog {
    pub(crate) outbox: Arc<Outbox>,
    /// This start of the node; set when storage is opened.
    pub(crate) run: OnceLock<NodeRun>,
    askers: Mutex<Askers>,
}

/// The callers that wait for the answers to their commands.
#[derive(Default)]
struct Askers {
    /// The number of the next command.
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Result<CommandOutcome, Refusal>>>,
}

impl DefinitionLog {
    pub(crate) fn new() -> Self {
        Self { outbox: Arc::new(Outbox::new()), run: OnceLock::new(), askers: Mutex::default() }
    }

    /// Puts a command on its way. Returns what gets its outcome.
    fn ask(&self, command: &CatalogCommand) -> oneshot::Receiver<Result<CommandOutcome, Refusal>> {
        let mut encoded = Vec::new();
        commands::encode(&mut encoded, command);
        let (sender, receiver) = oneshot::channel();
        let mut askers = self.askers.lock();
        let number = askers.next;
        askers.next += 1;
        askers.waiting.insert(number, sender);
        let append = |bytes: &mut Vec<u8>| entry::command(bytes, number, &encoded);
        self.outbox.push(Addition { append, row: Row::Others, room: encoded.len(), waiter: None, visible: true });
        receiver
    }

    /// Tells the caller of a command what it came to.
    pub(crate) fn tell(&self, number: u64, outcome: Result<CommandOutcome, Refusal>) {
        let asker = self.askers.lock().waiting.remove(&number);
        if let Some(asker) = asker {
            let _ = asker.send(outcome); // fails if nobody waits any more
        }
    }

    /// Notes that a command was carried out before a snapshot of a peer, which does not say what it came to.
    pub(crate) fn overtaken(&self, number: u64) {
        self.askers.lock().waiting.remove(&number);
    }
}

impl Broker {
    pub(crate) fn run(&self) -> NodeRun {
        self.node().run()
    }

    /// Has a command carried out. Whatever becomes of the caller, a command that was asked for is carried out.
    ///
    /// # Errors
    /// The catalog's refusals; that the node has no memory for more definitions; that it is starting or stopping; or that
    /// the log takes no commands, in which case the command may still be carried out later.
    pub(crate) async fn command(&self, command: CatalogCommand) -> Result<CommandOutcome, Refusal> {
        self.mark_activity();
        if self.is_recovering() {
            return Err(Refusal::new(RefusalKind::Stopping, "the node is starting".to_owned()));
        }
        let Some(storage) = self.node().storage.get() else {
            self.catalog().admit(&command)?;
            return self.carry_out(self.run(), &command, true);
        };
        {
            let catalog = self.catalog();
            catalog.admit(&command)?;
            // A command of the same client may be on its way although the client does not wait for it any more.
            if storage.groups.is_alone(0)
                && self.node().definitions.outbox.is_idle()
                && let Some(answer) = catalog.preview(&command)?
            {
                return Ok(CommandOutcome::unchanged(answer));
            }
        }
        self.until_commands_have_room().await?;
        loop {
            let asked = self.node().definitions.ask(&command);
            let outcome = tokio::select! {
                biased;
                outcome = asked => outcome,
                refusal = self.until_given_up(storage) => return Err(refusal),
            };
            match outcome {
                Ok(outcome) => return outcome,
                // It was carried out, and does nothing if it is carried out again.
                Err(_) if !matches!(command, CatalogCommand::DeleteQueue { .. }) => {}
                Err(_) => return Err(overtaken()),
            }
        }
    }

    /// Waits until a further command can be put on its way.
    ///
    /// # Errors
    /// The node is stopping, or the log takes no commands.
    pub(crate) async fn until_commands_have_room(&self) -> Result<(), Refusal> {
        let Some(storage) = self.node().storage.get() else { return Ok(()) };
        tokio::select! {
            biased;
            () = self.node().definitions.outbox.until_room() => Ok(()),
            refusal = self.until_given_up(storage) => Err(refusal),
        }
    }

    /// Waits until there is a reason to give a command up. Returns the reason.
    async fn until_given_up(&self, storage: &Storage) -> Refusal {
        let (mut led_at, mut reached_at) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                biased;
                () = self.node().stopping.cancelled() => return stopping(),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Some(reason) = storage.groups.stopped() {
                return Refusal::new(RefusalKind::Stopping, format!("what was asked may not be durable: {reason}"));
            }
            let (leader, cluster) = (storage.groups.leader(0), self.node().network.cluster.get());
            if leader.is_some() && !self.memory().is_cluster_alarmed() {
                led_at = Instant::now();
            } else if led_at.elapsed() >= LEADERLESS_MAX {
                return no_majority();
            }
            match leader.zip(cluster).filter(|(leader, cluster)| !cluster.reaches(leader.node)) {
                None => reached_at = Instant::now(),
                Some((leader, cluster)) if reached_at.elapsed() >= UNREACHED_MAX => {
                    let text = format!("the catalog {}", cluster.why_silent(leader.node));
                    return Refusal::new(RefusalKind::Stopping, text);
                }
                Some(_) => {}
            }
        }
    }

    /// Runs `work` to its end in a task of its own, even if the caller is cancelled. A panic in it ends the process,
    /// because the state of the node is unknown then.
    ///
    /// # Errors
    /// The error of `work`, or that the node is stopping.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let guard = EndsProcess(self.clone());
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(guard);
            done
        });
        match task.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(stopping()),
        }
    }
}

/// A guard that ends the process when a panic drops it.
struct EndsProcess(Broker);

impl Drop for EndsProcess {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(storage) = self.0.node().storage.get()
        {
            (storage.on_failure)("a change of what is declared panicked".to_owned());
        }
    }
}

/// The interval at which a caller that waits for its command looks whether the log still takes commands.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A caller does not wait longer than this while the leader of the group cannot be reached. A leader that the others reach
/// lets one of them lead before.
const UNREACHED_MAX: Duration = Duration::from_secs(15);
/// A caller does not wait longer than this while the group has no leader.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);
