//! Credentials: the token of an update, and the Basic authorization of an import.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use ureq_proto::http::{HeaderMap, Request, header};

use crate::reply::{Endpoint, Reply};
use mixpanel_groups::{Error, ErrorKind};

/// The credentials that the emulated project accepts. Those that are not set may be anything but
/// empty.
#[derive(Default)]
pub(crate) struct Credentials {
    pub(crate) token: Option<String>,
    pub(crate) service_account: Option<ServiceAccount>,
}

#[derive(PartialEq, Eq)]
pub(crate) struct ServiceAccount {
    pub(crate) user: String,
    pub(crate) secret: String,
    pub(crate) project_id: String,
}

impl Credentials {
    /// Checks that some request can match these credentials.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let fail = |message: &str| Err(Error::new(ErrorKind::Config, message));
        if self.token.as_ref().is_some_and(String::is_empty) {
            return fail("the token is empty: leave it out to accept any");
        }
        let Some(account) = &self.service_account else {
            return Ok(());
        };
        if account.user.is_empty() || account.secret.is_empty() || account.project_id.is_empty() {
            return fail("user name, secret or project id of the service account is empty");
        }
        if account.user.contains(':') {
            return fail(
                "the service account's user name contains a colon, which ends it in Basic",
            );
        }
        Ok(())
    }

    /// Checks the tokens of a request's updates. Mixpanel replies `1` whether a token is valid or not;
    /// this refuses the request, so that a test sees a wrong one.
    pub(crate) fn check_updates(&self, updates: &[Value]) -> Result<(), Reply> {
        // What is not an object is refused for that.
        let mut updates = updates.iter().filter(|update| update.is_object());
        let mut is_foreign = |token: &String| updates.any(|update| update["$token"] != **token);
        if self.token.as_ref().is_some_and(&mut is_foreign) {
            return refuse(Endpoint::Groups, "a project token is missing or unknown");
        }
        Ok(())
    }

    /// Checks the Basic authorization of an import. With an empty password, the user name is the
    /// project's token; otherwise it is a service account's, and the query has a `project_id`. The
    /// project secret and OAuth, which Mixpanel documents too, are not known here.
    pub(crate) fn check_import(&self, request: &Request<()>) -> Result<(), Reply> {
        let Some((user, secret)) = basic_authorization(request.headers()) else {
            return refuse(Endpoint::Import, "Basic authorization is missing");
        };
        if secret.is_empty() {
            let is_known = match &self.token {
                Some(token) => *token == user,
                None => !user.is_empty(),
            };
            return if is_known {
                Ok(())
            } else {
                refuse(Endpoint::Import, "the project token is missing or unknown")
            };
        }
        let query = request.uri().query().unwrap_or_default();
        let project_id =
            form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "project_id");
        let Some((_, project_id)) = project_id else {
            return refuse(
                Endpoint::Import,
                "the parameter project_id is missing: a service account needs it",
            );
        };
        let given = ServiceAccount {
            user,
            secret,
            project_id: project_id.into_owned(),
        };
        let is_known = match &self.service_account {
            Some(account) => *account == given,
            None => !given.user.is_empty() && !given.project_id.is_empty(),
        };
        if is_known {
            return Ok(());
        }
        refuse(
            Endpoint::Import,
            "the service account or its project_id is empty or unknown",
        )
    }
}

fn refuse(endpoint: Endpoint, reason: &str) -> Result<(), Reply> {
    Err(Reply::unauthorized(endpoint, reason))
}

/// Returns user name and password.
fn basic_authorization(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
