//! The program with few file descriptors, and clients that want them all.
#![allow(clippy::unwrap_used, reason = "a test")]
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Program {
    process: Child,
    folder: PathBuf,
    amqp: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Program {
    /// One whose limit of descriptors is `soft` and may be raised to `hard`, on ports that the system chooses.
    fn start(soft: u32, hard: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("leveret-descriptors-{}", std::process::id()));
        let data_dir = folder.join("data");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\"")).arg("sh");
        command.arg(env!("CARGO_BIN_EXE_leveret")).arg("serve").arg("--data-dir").arg(data_dir);
        for door in ["--amqp", "--http", "--metrics"] {
            command.arg(door).arg("127.0.0.1:0");
        }
        let mut process = command.env("RUST_LOG", "info").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let ready = lines.find_map(|line| line.ok().filter(|line| line.contains("leveret is ready"))).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let amqp = ready.split(' ').find_map(|field| field.strip_prefix("amqp=")).unwrap().to_owned();
        Self { process, folder, amqp }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(&self.amqp).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Returns whether a client is greeted with `connection.start`.
    fn greets(&self) -> bool {
        let (mut socket, mut head) = (self.connect(), [0; 11]);
        let answered = socket.write_all(b"AMQP\0\0\x09\x01").and_then(|()| socket.read_exact(&mut head));
        answered.is_ok() && head[7..] == [0, 10, 0, 10]
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn silent_clients_neither_take_the_descriptors_of_storage_nor_keep_others_out() {
    let program = Program::start(256, 512);
    // More than there are descriptors. Most are closed at once: none of them has had its second yet.
    let silent: Vec<_> = (0..600).map(|_| program.connect()).collect();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !program.greets() {
        assert!(std::time::Instant::now() < deadline, "a client that speaks comes in");
        std::thread::sleep(Duration::from_millis(10));
    }
    let used = program.descriptors();
    assert!(used <= 512 - 128, "{used} of 512 descriptors are in use");
    drop(silent);
}
