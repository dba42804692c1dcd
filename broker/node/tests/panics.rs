//! Tests of panics, each in a process of its own: which of them end the process, and with which exit code.
use bytes::Bytes;
use leveret_engine::catalog::QueueSettings;
use leveret_engine::queue::{LoggedRun, QueueCore, RunName};
use leveret_node::{Broker, Delivery, EXIT_AFTER_PANIC, Fill, Options, Sink, Source, install_panic_hook};
use std::process::Command;

/// Runs the test `child` in a process of its own, which does what `what` says. Returns the exit code.
fn exit_code_of(what: &str) -> Option<i32> {
    let program = std::env::current_exe().expect("the test has a file");
    let arguments = ["child", "--exact", "--nocapture", "--ignored"];
    Command::new(program).args(arguments).env("LEVERET_PANIC", what).output().expect("it runs again").status.code()
}

#[test]
fn a_panic_in_a_critical_task_ends_the_process() {
    assert_eq!(exit_code_of("critical"), Some(EXIT_AFTER_PANIC));
}

#[test]
fn a_panic_in_the_rules_ends_the_process_in_any_task() {
    assert_eq!(exit_code_of("rules"), Some(EXIT_AFTER_PANIC));
}

#[test]
fn a_panic_elsewhere_ends_its_own_task_and_is_counted() {
    assert_eq!(exit_code_of("elsewhere"), Some(0));
}

/// Not a test of its own: the part of the tests above that runs in the other process.
#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn child() {
    let Ok(what) = std::env::var("LEVERET_PANIC") else { return };
    install_panic_hook();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let ended = runtime.block_on(async {
        let broker = Broker::start(Options::default());
        match what.as_str() {
            "critical" => {
                broker.spawn_critical("a task", panic_after_an_await());
                std::future::pending().await
            }
            "rules" => tokio::spawn(async { deliver_what_is_no_message() }).await,
            _ => {
                let ended = tokio::spawn(panic_after_an_await()).await;
                assert_eq!(broker.panics(), 1);
                ended
            }
        }
    });
    std::process::exit(if ended.is_err() { 0 } else { 1 });
}

async fn panic_after_an_await() {
    tokio::task::yield_now().await;
    panic!("elsewhere");
}

/// Causes an index out of bounds in the rules.
fn deliver_what_is_no_message() {
    let mut queue = QueueCore::new(&QueueSettings::default(), true);
    queue.lead(u64::MAX, 1);
    let logged = LoggedRun { run: &Bytes::new(), name: RunName::default(), count: 1, body_bytes: 0, warm: true };
    queue.apply_logged(&logged, 0);
    queue.get(&Anything, true, 0);
}

struct Anything;

impl Sink for Anything {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        while let Some(Delivery { .. }) = source.next() {}
        Fill::Exhausted
    }
}
