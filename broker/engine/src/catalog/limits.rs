//! How much may be declared in one virtual host, and what a client is told that asks for more.
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;

/// What the declarations of a virtual host come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bindings: usize,
    /// Names, keys, arguments and what is kept to find them, about.
    pub(super) bytes: usize,
}

impl Usage {
    /// Checks that something of this size may be added, if there may be `most` bytes.
    ///
    /// # Errors
    /// 406 naming the limit.
    pub(super) fn check_bytes(&self, bytes: usize, most: usize, vhost: &str) -> Result<(), Refusal> {
        check(self.bytes + bytes, most, "bytes of definitions", vhost)
    }
}

/// Checks that `count` of something are not more than may be.
///
/// # Errors
/// 406 naming the limit.
pub(super) fn check(count: usize, most: usize, what: &str, vhost: &str) -> Result<(), Refusal> {
    if count > most {
        return Err(Refusal::precondition(format!("vhost '{vhost}' has the {most} {what} that it may have")));
    }
    Ok(())
}

/// Checks the arguments of one declaration.
///
/// # Errors
/// 406 naming how many bytes they take.
pub(super) fn check_arguments(what: &str, name: &str, arguments: &FieldTable) -> Result<(), Refusal> {
    let bytes = arguments.memory_bytes();
    if bytes > ARGUMENTS_BYTES_MAX {
        return Err(Refusal::precondition(format!(
            "arguments of {what} '{name}' take {bytes} bytes, more than {ARGUMENTS_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Queues of a virtual host.
pub(super) const QUEUES_MAX: usize = 500_000;
/// Exchanges of a virtual host.
pub(super) const EXCHANGES_MAX: usize = 100_000;
/// Bindings of a virtual host.
pub(super) const BINDINGS_MAX: usize = 1_000_000;
/// Memory of a virtual host's definitions, in bytes, if nobody says that it is less.
pub(super) const BYTES_MAX: usize = 512 << 20;
/// Memory of the arguments of one declaration, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 64 << 10;
