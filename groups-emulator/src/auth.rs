//! Who may import events.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ureq_proto::http::{HeaderMap, Request, StatusCode, header};

use crate::answer::Answer;
use crate::settings::Settings;

/// Checks the Basic authorization: with an empty password the user name is the project's token,
/// otherwise it is a service account's, and the query has a `project_id`.
pub(crate) fn check(request: &Request<()>, settings: &Settings) -> Result<(), Answer> {
    let refuse = |message| Err(Answer::error(StatusCode::UNAUTHORIZED, message));
    let Some((user, password)) = credentials(request.headers()) else {
        return refuse("there is no Basic authorization");
    };
    if password.is_empty() {
        let is_known = match &settings.token {
            Some(token) => *token == user,
            None => !user.is_empty(),
        };
        return if is_known {
            Ok(())
        } else {
            refuse("the project token is missing or unknown")
        };
    }
    let query = request.uri().query().unwrap_or_default();
    let project = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "project_id");
    let Some((_, project)) = project else {
        return refuse("a service account needs the parameter project_id");
    };
    let given = [user, password, project.into_owned()];
    match &settings.service_account {
        Some(account) if *account != given => refuse("the service account is unknown"),
        _ => Ok(()),
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
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
