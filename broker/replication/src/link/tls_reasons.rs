//! What goes wrong with TLS between nodes, in words that say which side and which certificate is meant.
use std::io;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Returns an error of a stream with its reason in words.
pub(super) fn explained(error: io::Error) -> io::Error {
    let text = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => reason(inner),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the other side has closed the connection during the TLS handshake".to_owned()
        }
        None => return error,
    };
    io::Error::new(error.kind(), text)
}

/// Returns in words what has gone wrong.
pub(super) fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(_) => format!("the certificate of the other side {}", fault(error)),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::NoCertificatesPresented => "the other side has shown no certificate".to_owned(),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "the other side speaks no TLS: is its cluster_tls_cert set?".to_owned()
        }
        Error::InvalidMessage(
            InvalidMessage::CertificatePayloadTooLarge | InvalidMessage::HandshakePayloadTooLarge,
        ) => "the certificates of the other side take more than 64 KiB".to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => "the other side does not speak TLS 1.3".to_owned(),
        other => format!("TLS with the other side fails: {other}"),
    }
}

/// Returns what is wrong with a certificate, as the end of a sentence that begins with it.
pub(super) fn fault(error: &Error) -> String {
    use CertificateError as Bad;
    let Error::InvalidCertificate(error) = error else { return format!("cannot be used: {error}") };
    match error {
        Bad::UnknownIssuer => "is not from an authority in cluster_tls_ca".to_owned(),
        Bad::BadSignature => "is from an authority that only has the name of one in cluster_tls_ca".to_owned(),
        Bad::Expired | Bad::ExpiredContext { .. } => "has expired".to_owned(),
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => "is not valid yet".to_owned(),
        Bad::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
            let names =
                if names.is_empty() { "but for no name".to_owned() } else { format!("only for {}", names.join(", ")) };
            format!("is not for {}, {names}", expected.to_str())
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            "may not be used for this: it needs both server and client authentication, or no extended key usage"
                .to_owned()
        }
        other => format!("is not valid: {other}"),
    }
}

/// Returns a name of a certificate without its kind: `a.b` for `DnsName("a.b")`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// Returns why the other side has refused this one: that is what an alert says.
fn of_alert(alert: AlertDescription) -> String {
    let refusal = match alert {
        AlertDescription::UnknownCA => "it is not from an authority that the other side trusts",
        AlertDescription::CertificateExpired => "it has expired or is not valid yet",
        AlertDescription::BadCertificate => {
            "it is not for the address that the other side has dialled, or is malformed"
        }
        AlertDescription::UnsupportedCertificate => {
            "it needs both server and client authentication, or no extended key usage"
        }
        AlertDescription::CertificateRequired => "there is none",
        AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied => "it is not valid",
        AlertDescription::DecryptError => "it is signed by somebody whom the other side does not trust",
        AlertDescription::ProtocolVersion => return "the other side does not speak TLS 1.3".to_owned(),
        other => return format!("the other side has ended TLS: {other:?}"),
    };
    format!("the other side refuses the certificate of this node: {refusal}")
}

/// Returns the name that the certificate of the node at an address must have.
pub(super) fn server_name(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let no_name = |_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("'{host}' is no name and no address that a certificate can have"),
        )
    };
    ServerName::try_from(host.to_owned()).map_err(no_name)
}
