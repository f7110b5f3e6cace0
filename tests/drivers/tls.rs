//! The outbox reaches a server that demands TLS, with the connector that the README of its crate names.

use std::path::Path;
use std::{env, process};

use common::postgres::server::{
    connection_string_of, create, programs_for, run, serve, unprivileged, wait_for,
};
use common::postgres::{drain, seats};
use mixpanel_groups::ErrorKind;
use mixpanel_groups_postgres::PostgresOutbox;
use native_tls::{Certificate, TlsConnector};
use postgres::config::SslMode;
use postgres::{Config, NoTls};
use postgres_native_tls::MakeTlsConnector;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn trusting(authority: &CertifiedIssuer<'static, KeyPair>) -> MakeTlsConnector {
    let authority = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let connector = TlsConnector::builder()
        .add_root_certificate(authority)
        .build();
    MakeTlsConnector::new(connector.unwrap())
}

/// Writes a file that only the server's user can read.
fn write(path: &Path, text: &str) {
    let script = r#"umask 077; printf %s "$1" >"$0""#;
    let mut shell = unprivileged(Path::new("sh"));
    run(shell.args(["-c", script]).arg(path).arg(text)).unwrap();
}

#[test]
fn tls() {
    let Some(programs) = programs_for("TLS to PostgreSQL") else {
        return;
    };
    let data = env::temp_dir().join(format!("mixpanel-groups-tls.{}", process::id()));
    create(&programs, &data).unwrap();
    let (ours, another) = (authority("ours"), authority("another"));
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    write(
        &data.join("server.crt"),
        &params.signed_by(&key, &ours).unwrap().pem(),
    );
    write(&data.join("server.key"), &key.serialize_pem());
    let (_server, port) = serve(&programs, &data, "-c ssl=on").unwrap();
    wait_for(&connection_string_of(port), &data).unwrap();

    let mut config: Config = connection_string_of(port).parse().unwrap();
    // Without a word to the contrary, the connection is not encrypted.
    let is_encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let mut plain = config.connect(NoTls).unwrap();
    assert!(
        !plain
            .query_one(is_encrypted, &[])
            .unwrap()
            .get::<_, bool>(0)
    );

    config.ssl_mode(SslMode::Require);
    let failure = |outbox: PostgresOutbox| {
        let error = outbox.migrate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        format!("{error:#}")
    };
    let without = failure(PostgresOutbox::new(config.clone(), NoTls).unwrap());
    assert!(
        without.contains("no TLS implementation configured"),
        "{without}"
    );
    // The certificate is for this name, and not for the address.
    let by_address = failure(PostgresOutbox::new(config.clone(), trusting(&ours)).unwrap());
    let mut config: Config = connection_string_of(port)
        .replace("127.0.0.1", "localhost")
        .parse()
        .unwrap();
    config.ssl_mode(SslMode::Require);
    let unknown = failure(PostgresOutbox::new(config.clone(), trusting(&another)).unwrap());
    for error in [by_address, unknown] {
        assert!(error.contains("TLS"), "{error}");
    }

    let tls = trusting(&ours);
    let outbox = PostgresOutbox::new(config.clone(), tls.clone()).unwrap();
    outbox.migrate().unwrap();
    let mut database = config.connect(tls).unwrap();
    assert!(
        database
            .query_one(is_encrypted, &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    let mut transaction = database.transaction().unwrap();
    outbox
        .publish_in(&mut transaction, seats("acme", 1))
        .unwrap();
    transaction.commit().unwrap();
    assert_eq!(drain(&outbox), [("acme".to_owned(), 1)]);
    let of_outbox = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl)
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'mixpanel-groups'";
    let row = database.query_one(of_outbox, &[]).unwrap();
    let (encrypted, others): (i64, i64) = (row.get(0), row.get(1));
    assert!(encrypted > 0 && others == 0, "{encrypted}, {others}");
}

/// The README says which options of libpq the crate `postgres` does not read.
#[test]
fn options_of_libpq() {
    let parsed = |options: &str| format!("postgres://db/app?{options}").parse::<Config>();
    assert!(parsed("sslmode=require").is_ok());
    for options in [
        "sslmode=allow",
        "sslmode=verify-ca",
        "sslmode=verify-full",
        "sslrootcert=ca.pem",
        "sslcert=client.pem",
        "sslkey=client.key",
    ] {
        parsed(options).unwrap_err();
    }
}
