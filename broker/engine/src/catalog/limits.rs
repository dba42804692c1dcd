//! The limits on the definitions of one virtual host, and the refusals beyond them.
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;

/// The size of the definitions of a virtual host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bindings: usize,
    /// About how many bytes of memory names, keys, arguments and their indexes take.
    pub(super) bytes: usize,
}

impl Usage {
    /// Checks that a definition of `bytes` bytes may be added to these if `most` bytes are allowed.
    ///
    /// # Errors
    /// 406 naming the limit.
    pub(super) fn check_bytes(&self, bytes: usize, most: usize, vhost: &str) -> Result<(), Refusal> {
        check(self.bytes + bytes, most, "bytes of definitions", vhost)
    }
}

/// Checks that `count` is not more than `most`.
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
/// 406 naming the number of bytes that they take.
pub(super) fn check_arguments(what: &str, name: &str, arguments: &FieldTable) -> Result<(), Refusal> {
    let bytes = arguments.memory_bytes();
    if bytes > ARGUMENTS_BYTES_MAX {
        return Err(Refusal::precondition(format!(
            "arguments of {what} '{name}' take {bytes} bytes, more than {ARGUMENTS_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// The most queues of one virtual host.
pub(super) const QUEUES_MAX: usize = 500_000;
/// The most exchanges of one virtual host.
pub(super) const EXCHANGES_MAX: usize = 100_000;
/// The most bindings of one virtual host.
pub(super) const BINDINGS_MAX: usize = 1_000_000;
/// The most memory of the definitions of one virtual host, in bytes, unless the configuration allows less.
pub(super) const BYTES_MAX: usize = 512 << 20;
/// The most memory of the arguments of one declaration, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 64 << 10;
