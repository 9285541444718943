//! Handshakes that fail by a certificate: what to do about them.

use std::error::Error;
use std::io;

use rustls::{AlertDescription as Alert, CertificateError as Certificate};

use ground::faults::Fault;

/// Returns what can be done about a request that failed by a certificate, and a sentence that says so; none where something
/// else failed it.
pub fn advice(error: &(dyn Error + 'static)) -> Option<(Fault, &'static str)> {
    match handshake(error)? {
        rustls::Error::InvalidCertificate(certificate) => Some((Fault::Input, of_server(certificate))),
        rustls::Error::InconsistentKeys(_) => {
            Some((Fault::Input, "the key in `client_key` is not that of the certificate in `client_cert`"))
        }
        rustls::Error::AlertReceived(alert) => of_client(*alert).map(|advice| (Fault::Denied, advice)),
        _ => None,
    }
}

/// Returns the cause of the TLS library, if it is among the causes.
fn handshake<'e>(mut error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an error of the system was made from is not among its causes.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error = match inner {
            Some(inner) => inner,
            None => error.source()?,
        };
    }
}

fn of_server(certificate: &Certificate) -> &'static str {
    match certificate {
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
            "give the name that the server's certificate has"
        }
        Certificate::Expired
        | Certificate::ExpiredContext { .. }
        | Certificate::NotValidYet
        | Certificate::NotValidYetContext { .. } => {
            "renew the server's certificate, or correct the clock of this host"
        }
        _ => {
            "if it is the right server, name a file with the authority that signed its certificate as `ca_file`"
        }
    }
}

fn of_client(alert: Alert) -> Option<&'static str> {
    match alert {
        Alert::CertificateRequired => {
            Some("the server asks for a certificate: name one as `client_cert`, and its key as `client_key`")
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => {
            Some("the server does not accept the certificate of `client_cert`: ask for one that it does")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_found_below_errors_of_the_system() {
        let within =
            |error: rustls::Error| io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        for (error, fault, word) in [
            (Certificate::UnknownIssuer.into(), Fault::Input, "`ca_file`"),
            (Certificate::NotValidForName.into(), Fault::Input, "the name"),
            (Certificate::Expired.into(), Fault::Input, "renew"),
            (rustls::InconsistentKeys::KeyMismatch.into(), Fault::Input, "`client_key`"),
            (rustls::Error::AlertReceived(Alert::CertificateRequired), Fault::Denied, "`client_key`"),
            (rustls::Error::AlertReceived(Alert::UnknownCA), Fault::Denied, "does not accept"),
        ] {
            let (found, text) = advice(&within(error)).expect("a certificate");
            assert!(found == fault && text.contains(word), "{text}");
        }
        assert_eq!(advice(&within(rustls::Error::AlertReceived(Alert::InternalError))), None);
        assert_eq!(advice(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
