//! Certificates for TLS between nodes, and the authorities that they come from.

use std::process::Command;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::process::Folder;

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// The certificate of a node, its key, and the authorities that the node trusts, all in PEM form.
#[derive(Clone)]
pub struct Papers {
    pub cert: String,
    pub key: String,
    pub ca: String,
}

impl Authority {
    /// Returns a new authority.
    ///
    /// # Errors
    /// If it cannot be generated.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Returns a certificate for an address, which trusts these authorities.
    ///
    /// # Errors
    /// If it cannot be generated.
    pub fn papers(&self, address: &str, trusted: &[&Self]) -> Result<Papers> {
        let key = KeyPair::generate()?;
        let cert = CertificateParams::new([address.to_owned()])?.signed_by(&key, &self.0)?;
        let ca = trusted.iter().map(|authority| authority.0.pem()).collect();
        Ok(Papers { cert: cert.pem(), key: key.serialize_pem(), ca })
    }
}

impl Papers {
    /// Writes the files into the folder of a node.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, folder: &Folder) -> Result<()> {
        for (name, text) in [(CERT, &self.cert), (KEY, &self.key), (CA, &self.ca)] {
            folder.write(name, text)?;
        }
        Ok(())
    }

    /// Has a node use the files in its folder.
    pub fn name_files(serve: &mut Command, folder: &Folder) {
        for (flag, name) in [("--cluster-tls-cert", CERT), ("--cluster-tls-key", KEY), ("--cluster-tls-ca", CA)] {
            serve.arg(flag).arg(folder.path().join(name));
        }
    }
}

const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";
const CA: &str = "ca.crt";
