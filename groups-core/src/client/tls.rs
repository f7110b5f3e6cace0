//! Which issuers of certificates are trusted, and what is wrong with a secure connection.

use std::fs;
use std::io;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, RootCertStore};
use ureq::tls::{PemItem, RootCerts, parse_pem};

use crate::record::Error;

/// OpenSSL's variable, which curl and most languages' HTTP clients read too.
const VARIABLE: &str = "SSL_CERT_FILE";

/// The root certificates that a server's certificate leads back to.
#[derive(Clone)]
pub(super) enum Roots {
    /// Those of the file that `SSL_CERT_FILE` names; without it, Mozilla's.
    Environment,
    /// Those in a text of PEM.
    Pem(Vec<u8>),
    /// Those of the operating system, which decides itself.
    #[cfg(feature = "platform-verifier")]
    Platform,
}

impl Roots {
    /// Returns the certificates. `variable` reads the environment.
    pub(super) fn resolve(
        &self,
        variable: impl Fn(&str) -> Result<Option<String>, Error>,
    ) -> Result<RootCerts, Error> {
        match self {
            Self::Pem(pem) => parse("root_certificates", pem),
            #[cfg(feature = "platform-verifier")]
            Self::Platform => Ok(RootCerts::PlatformVerifier),
            // An empty variable counts as one that is not set.
            Self::Environment => match variable(VARIABLE)?.filter(|path| !path.is_empty()) {
                None => Ok(RootCerts::WebPki),
                Some(path) => {
                    let setting = format!("{VARIABLE} {path:?}");
                    let pem = fs::read(&path).map_err(|error| {
                        Error::config(format!("invalid {setting}: cannot read the file"))
                            .with_source(error)
                    })?;
                    parse(&setting, &pem)
                }
            },
        }
    }
}

/// Reads the certificates of a text, and no keys that stand beside them.
fn parse(setting: &str, pem: &[u8]) -> Result<RootCerts, Error> {
    let mut certificates = Vec::new();
    for item in parse_pem(pem) {
        let item = item.map_err(|error| {
            Error::config(format!("invalid {setting}: the text is not PEM")).with_source(error)
        })?;
        if let PemItem::Certificate(certificate) = item {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(Error::config(format!(
            "invalid {setting}: it contains no certificate; \
             expected PEM, which begins with -----BEGIN CERTIFICATE-----"
        )));
    }
    // Some, as in a system's bundle, may be of a kind that rustls does not read: these are left out.
    let all = certificates
        .iter()
        .map(|one| CertificateDer::from(one.der()));
    if RootCertStore::empty().add_parsable_certificates(all).0 == 0 {
        return Err(Error::config(format!(
            "invalid {setting}: none of its certificates can be read"
        )));
    }
    Ok(RootCerts::from(certificates))
}

/// Returns what is wrong if the error is one of TLS that the next attempt would meet again. These arrive within an I/O error.
pub(super) fn problem(error: &io::Error) -> Option<&'static str> {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        // A damaged message in either direction, and what a load balancer says while it is restarted.
        rustls::Error::DecryptError
        | rustls::Error::AlertReceived(
            AlertDescription::BadRecordMac
            | AlertDescription::InternalError
            | AlertDescription::UserCanceled,
        ) => return None,
        rustls::Error::InvalidMessage(_) => {
            return Some("the response is not TLS; is `https` right for this port?");
        }
        _ => return Some("no secure connection"),
    };
    Some(match certificate {
        UnknownIssuer => {
            "the server's certificate is from an unknown issuer; if that is your company's \
             proxy or server, name its root certificate with `root_certificates` or SSL_CERT_FILE"
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "the server's certificate is for another host name"
        }
        Expired | ExpiredContext { .. } => {
            "the server's certificate has expired; is this machine's clock right?"
        }
        NotValidYet | NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; is this machine's clock right?"
        }
        _ => "the server's certificate is not valid",
    })
}
