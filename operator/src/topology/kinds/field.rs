//! Checks of fields for resources that come from a file. For resources in a cluster, the API server makes the same
//! checks with the definitions of the kinds.

/// A field with a value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// The name of the field in the spec.
    pub(crate) field: &'static str,
    /// The value that was expected, in words.
    pub(crate) problem: String,
}

/// A name of the broker, in a field of the spec.
pub(super) struct NameField<'a> {
    pub(super) field: &'static str,
    pub(super) value: &'a str,
}

/// Checks that names fit into AMQP's short strings and have no line breaks.
///
/// # Errors
/// The first name that does not fit; if all fit, the first one with a line break.
pub(super) fn check_names(names: &[NameField<'_>]) -> Result<(), FieldError> {
    if let Some(NameField { field, value }) =
        names.iter().find(|name| name.value.is_empty() || name.value.len() > NAME_BYTES_MAX)
    {
        let problem = format!("1 to {NAME_BYTES_MAX} bytes are expected, not {}", value.len());
        return Err(FieldError { field, problem });
    }
    if let Some(NameField { field, value }) = names.iter().find(|name| name.value.contains(['\r', '\n'])) {
        return Err(FieldError { field, problem: format!("a name has no line breaks: {value:?}") });
    }
    Ok(())
}

/// Checks the fields `name` and `vhost` of an object that has a name of its own in a virtual host.
///
/// # Errors
/// A name that [`check_names`] refuses, or one that the broker keeps for itself.
pub(super) fn check_own_name(name: &str, vhost: &str) -> Result<(), FieldError> {
    check_names(&[NameField { field: "name", value: name }, NameField { field: "vhost", value: vhost }])?;
    if is_reserved(name) {
        let problem = format!("names that begin with amq. are reserved for the broker: '{name}'");
        return Err(FieldError { field: "name", problem });
    }
    Ok(())
}

/// Returns whether a name is one of those that the broker keeps for itself.
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with("amq.")
}

/// The longest short string of AMQP, in bytes.
const NAME_BYTES_MAX: usize = 255;
