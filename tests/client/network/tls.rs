//! Servers with certificates of an authority that the test makes.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use common::is_own_process;
use mixpanel_groups::{Client, ClientBuilder, Error, ErrorKind, Group, Report, RetryPolicy};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{relay, respond};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn params(host: &str) -> CertificateParams {
    CertificateParams::new(vec![host.to_owned()]).unwrap()
}

/// Starts a server that responds `1` to each request, with such a certificate of the authority.
fn serve(params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // A client that does not trust the certificate leaves.
            let _ = respond(StreamOwned::new(connection, stream.unwrap()));
        }
    });
    address
}

/// Starts a proxy that brings every connection to this address, whatever the client asks for.
fn tunnel(to: SocketAddr) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(to).unwrap();
            super::proxies::read_head(&mut BufReader::new(&client));
            (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            relay(client, server);
        }
    });
    proxy
}

fn builder(endpoint: &str) -> ClientBuilder {
    let retry = RetryPolicy::none();
    Client::builder("TOKEN").endpoint(endpoint).retry(retry)
}

fn send(builder: ClientBuilder) -> Result<Report, Error> {
    builder
        .build()?
        .send(Group::new("company", "acme").delete())
}

fn at_localhost(address: SocketAddr) -> String {
    format!("https://localhost:{}", address.port())
}

#[test]
fn a_server_with_a_certificate_of_the_own_authority_is_trusted() {
    let authority = authority("Own");
    let endpoint = at_localhost(serve(&params("localhost"), &authority));
    let report = send(builder(&endpoint).root_certificates(authority.pem())).unwrap();
    assert_eq!(report.accepted, 1);
    // Among others, as in a company's bundle; keys beside them are left alone.
    let other = self::authority("Other").pem();
    let key = KeyPair::generate().unwrap().serialize_pem();
    let bundle = format!("# Ours\n{other}{key}{}", authority.pem());
    assert_eq!(
        send(builder(&endpoint).root_certificates(bundle))
            .unwrap()
            .accepted,
        1
    );
}

#[test]
fn a_server_that_cannot_be_trusted_is_an_error_that_says_why() {
    const HINT: &str = "the server's certificate is from an unknown issuer; if that is your \
        company's proxy or server, name its root certificate with `root_certificates` or SSL_CERT_FILE";
    let authority = authority("Own");
    let valid = params("localhost");
    let mut expired = params("localhost");
    expired.not_after = date_time_ymd(2020, 1, 1);
    let mut early = params("localhost");
    early.not_before = date_time_ymd(4000, 1, 1);
    let own = authority.pem();
    let rows = [
        (valid.clone(), self::authority("Other").pem(), HINT),
        (
            params("mixpanel.test"),
            own.clone(),
            "the server's certificate is for another host name",
        ),
        (
            expired,
            own.clone(),
            "the server's certificate has expired; is this machine's clock right?",
        ),
        (
            early,
            own,
            "the server's certificate is not valid yet; is this machine's clock right?",
        ),
    ];
    let check = |error: &Error, peer: &str, expected: &str| {
        assert_eq!(error.kind(), ErrorKind::Tls, "{error:#}");
        assert_eq!(
            error.to_string(),
            format!("{peer}: {expected} (1 undelivered)")
        );
        assert!(!error.is_retryable());
        assert_eq!(error.report().unwrap().requests, 1);
        assert!(std::error::Error::source(error).is_some());
    };
    for (params, roots, expected) in rows {
        let endpoint = at_localhost(serve(&params, &authority));
        let error = send(builder(&endpoint).root_certificates(roots)).unwrap_err();
        check(&error, &endpoint, expected);
    }
    // Mozilla's list does not have it either.
    if is_own_process(
        a_server_that_cannot_be_trusted_is_an_error_that_says_why,
        &[("SSL_CERT_FILE", "")],
    ) {
        let endpoint = at_localhost(serve(&valid, &authority));
        check(&send(builder(&endpoint)).unwrap_err(), &endpoint, HINT);
    }
}

#[test]
fn certificates_are_checked_through_a_proxy_too() {
    let authority = authority("Own");
    let proxy = tunnel(serve(&params("mixpanel.test"), &authority));
    for (endpoint, expected) in [
        ("https://mixpanel.test", None),
        (
            "https://other.test",
            Some("the server's certificate is for another host name"),
        ),
    ] {
        let roots = authority.pem();
        let sent = send(builder(endpoint).proxy(&proxy).root_certificates(roots));
        match expected {
            None => assert_eq!(sent.unwrap().accepted, 1),
            Some(expected) => assert_eq!(
                sent.unwrap_err().to_string(),
                format!("{endpoint} through the proxy {proxy}: {expected} (1 undelivered)")
            ),
        }
    }
    let error = send(builder("https://mixpanel.test").proxy(&proxy)).unwrap_err();
    assert!(error.to_string().contains("unknown issuer"), "{error}");
}

/// The file that the child process finds its root certificate in.
fn file(name: &str, text: &str) -> PathBuf {
    let name = format!("mixpanel-groups-{}-{name}.pem", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_file_of_the_environment_is_read() {
    const ENDPOINT: &str = "ENDPOINT_OF_THE_PARENT";
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        assert_eq!(send(builder(&endpoint)).unwrap().accepted, 1);
        assert_eq!(
            send(builder(&endpoint).platform_verifier())
                .unwrap()
                .accepted,
            1
        );
        // What the program sets comes before.
        let other = authority("Other").pem();
        let error = send(builder(&endpoint).root_certificates(other)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
        return;
    }
    let authority = authority("Own");
    let endpoint = at_localhost(serve(&params("localhost"), &authority));
    let path = file("root", &authority.pem());
    is_own_process(
        the_file_of_the_environment_is_read,
        &[
            (ENDPOINT, &endpoint),
            ("SSL_CERT_FILE", path.to_str().unwrap()),
        ],
    );
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_of_the_environment_that_is_of_no_use_is_an_error() {
    const EXPECTED: &str = "EXPECTED_BY_THE_PARENT";
    if let Ok(expected) = std::env::var(EXPECTED) {
        let error = Client::new("TOKEN").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), expected);
        // No certificate is needed here.
        builder("http://localhost:1").build().unwrap();
        return;
    }
    let path = file("empty", "no certificate");
    let paths = [path.to_str().unwrap(), "/no/such/file.pem"];
    for (path, expected) in paths.into_iter().zip([
        "it contains no certificate; expected PEM, which begins with -----BEGIN CERTIFICATE-----",
        "cannot read the file",
    ]) {
        let expected = format!("invalid SSL_CERT_FILE {path:?}: {expected}");
        is_own_process(
            a_file_of_the_environment_that_is_of_no_use_is_an_error,
            &[("SSL_CERT_FILE", path), (EXPECTED, &expected)],
        );
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_text_that_is_no_certificate_is_an_error() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    for (pem, expected) in [
        (
            "",
            "it contains no certificate; expected PEM, which begins with -----BEGIN CERTIFICATE-----",
        ),
        (
            &key,
            "it contains no certificate; expected PEM, which begins with -----BEGIN CERTIFICATE-----",
        ),
        (
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            "the text is not PEM",
        ),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "the text is not PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "none of its certificates can be read",
        ),
    ] {
        let error = Client::builder("T")
            .root_certificates(pem)
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(
            error.to_string(),
            format!("invalid root_certificates: {expected}")
        );
    }
}
