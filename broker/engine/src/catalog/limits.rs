//! How much may be declared in one virtual host, and the refusals beyond that.
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;

/// What the definitions of a virtual host amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bindings: usize,
    /// About how many bytes of memory names, keys, arguments and their indexes take.
    pub(super) bytes: usize,
}

impl Usage {
    /// Checks that a definition of `bytes` may be added if `most` bytes are allowed.
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

/// Queues of one virtual host.
pub(super) const QUEUES_MAX: usize = 500_000;
/// Exchanges of one virtual host.
pub(super) const EXCHANGES_MAX: usize = 100_000;
/// Bindings of one virtual host.
pub(super) const BINDINGS_MAX: usize = 1_000_000;
/// Memory of the definitions of one virtual host, in bytes, unless the configuration says less.
pub(super) const BYTES_MAX: usize = 512 << 20;
/// Memory of the arguments of one declaration, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 64 << 10;
