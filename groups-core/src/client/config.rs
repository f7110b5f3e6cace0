//! A client's settings from a config file, with the feature `serde`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_core::de::{self, Deserialize, Deserializer, Visitor};

use crate::client::{ClientBuilder, Compression, Region, RetryPolicy};

/// All settings, each under the name of the builder's method.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename = "ClientBuilder")]
struct ConfigFile {
    #[serde(default)]
    token: String,
    region: Option<FromText<Region>>,
    endpoint: Option<String>,
    allow_plain_http: Option<bool>,
    service_account: Option<AccountConfig>,
    max_batch: Option<usize>,
    max_body: Option<usize>,
    connections: Option<usize>,
    compression: Option<FromText<Compression>>,
    retry: Option<RetryConfig>,
    timeout: Option<DurationText>,
    connect_timeout: Option<DurationText>,
    strict: Option<bool>,
    proxy: Option<String>,
    no_proxy: Option<bool>,
    #[cfg(feature = "tls")]
    root_certificates: Option<String>,
    #[cfg(feature = "platform-verifier")]
    platform_verifier: Option<bool>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountConfig {
    user: String,
    secret: String,
    project_id: ProjectId,
}

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected a project id: text or a number")]
enum ProjectId {
    Number(u64),
    Text(String),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryConfig {
    attempts: Option<u32>,
    base_delay: Option<DurationText>,
    max_delay: Option<DurationText>,
    deadline: Option<DurationText>,
}

/// A value that is written as text.
struct FromText<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for FromText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// A duration: text with a unit (`"30s"`, `"500ms"`, `"5m"`), or a number of seconds.
struct DurationText(Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor).map(Self)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"30s\" or a number of seconds")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        let invalid = |_| E::invalid_value(de::Unexpected::Str(text), &self);
        humantime::parse_duration(text).map_err(invalid)
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
        Ok(Duration::from_secs(seconds))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
        let invalid = |_| E::invalid_value(de::Unexpected::Signed(seconds), &self);
        u64::try_from(seconds)
            .map(Duration::from_secs)
            .map_err(invalid)
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
        let invalid = |_| E::invalid_value(de::Unexpected::Float(seconds), &self);
        Duration::try_from_secs_f64(seconds).map_err(invalid)
    }
}

/// Reads the settings from a config file of any format. Each setting is optional and has the name of its method. An unknown
/// name is an error.
///
/// ```
/// use mixpanel_groups::ClientBuilder;
///
/// let config = r#"{
///     "token": "PROJECT_TOKEN",
///     "region": "eu",
///     "connections": 4,
///     "compression": "gzip:6",
///     "timeout": "10s",
///     "retry": { "attempts": 5, "max_delay": "30s" },
///     "proxy": "http://proxy:3128"
/// }"#;
/// let client = serde_json::from_str::<ClientBuilder>(config)?.build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// To keep the token out of the file, leave it out and add it with [`token`](ClientBuilder::token).
impl<'de> Deserialize<'de> for ClientBuilder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let config = ConfigFile::deserialize(deserializer)?;
        let exclude = |one, other| Err(de::Error::custom(format!("{one} excludes {other}")));
        let mut builder = Self::new(config.token);
        match (config.region, config.endpoint) {
            (Some(_), Some(_)) => return exclude("`region`", "`endpoint`"),
            (Some(FromText(region)), None) => builder = builder.region(region),
            (None, Some(endpoint)) => builder = builder.endpoint(endpoint),
            (None, None) => {}
        }
        match (config.proxy, config.no_proxy) {
            (Some(_), Some(true)) => return exclude("`proxy`", "`no_proxy`"),
            (Some(proxy), _) => builder = builder.proxy(proxy),
            (None, Some(true)) => builder = builder.no_proxy(),
            (None, _) => {}
        }
        #[cfg(feature = "platform-verifier")]
        if config.platform_verifier == Some(true) {
            if config.root_certificates.is_some() {
                return exclude("`root_certificates`", "`platform_verifier`");
            }
            builder = builder.platform_verifier();
        }
        #[cfg(feature = "tls")]
        if let Some(pem) = config.root_certificates {
            builder = builder.root_certificates(pem);
        }
        if let Some(account) = config.service_account {
            let project_id = match account.project_id {
                ProjectId::Number(number) => number.to_string(),
                ProjectId::Text(text) => text,
            };
            builder = builder.service_account(account.user, account.secret, project_id);
        }
        if let Some(retry) = config.retry {
            builder = builder.retry(retry.policy());
        }
        /// Passes a setting to its method, if it is given.
        macro_rules! apply {
            ($($name:ident $(.$field:tt)?),*) => {$(
                if let Some(value) = config.$name {
                    builder = builder.$name(value$(.$field)?);
                }
            )*};
        }
        apply!(
            allow_plain_http,
            max_batch,
            max_body,
            connections,
            compression.0
        );
        apply!(timeout.0, connect_timeout.0, strict);
        Ok(builder)
    }
}

impl RetryConfig {
    fn policy(self) -> RetryPolicy {
        let mut policy = RetryPolicy::default();
        if let Some(attempts) = self.attempts {
            policy = policy.attempts(attempts);
        }
        if let Some(DurationText(delay)) = self.base_delay {
            policy = policy.base_delay(delay);
        }
        if let Some(DurationText(delay)) = self.max_delay {
            policy = policy.max_delay(delay);
        }
        if let Some(DurationText(deadline)) = self.deadline {
            policy = policy.deadline(deadline);
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_text_with_a_unit_or_a_number_of_seconds() {
        let read = |json: &str| {
            let duration = serde_json::from_str(json).map(|DurationText(duration)| duration);
            duration.map_err(|error| error.to_string())
        };
        for (json, millis) in [
            ("10", 10_000),
            ("0", 0),
            ("1.5", 1_500),
            (r#""10s""#, 10_000),
            (r#""500ms""#, 500),
        ] {
            assert_eq!(read(json), Ok(Duration::from_millis(millis)), "{json}");
        }
        let expected = r#"expected a duration such as "30s" or a number of seconds"#;
        for json in ["-1", "-1.5", "1e300", r#""10""#, "true"] {
            let error = read(json).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
