//! What the runner tells an endpoint in its environment.

use std::path::{Component, Path, PathBuf};

use crate::Result;

/// The exit code for a test case that an endpoint does not know; the runner then counts it as unsupported.
pub const UNSUPPORTED: u8 = 127;

/// Client or server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dials.
    Client,
    /// Listens.
    Server,
}

/// On what a file travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// `GET` on a unidirectional stream, answered by `PUSH` on another.
    Unidirectional,
    /// `GET` on a bidirectional stream, answered on it.
    Bidirectional,
    /// `GET` in a datagram, answered by `PUSH` in another.
    Datagram,
}

/// What is to be done. Whoever requests files is told on what they travel; its peer is told `transfer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestCase {
    /// Sessions are opened, nothing more.
    Handshake,
    /// Requests of the peer are answered.
    Transfer,
    /// Files are requested, and requests of the peer are answered.
    Request(Carrier),
}

impl TestCase {
    /// `None` if this endpoint does not know it.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "handshake" => Self::Handshake,
            "transfer" => Self::Transfer,
            _ => {
                let name = name.strip_prefix("transfer-")?;
                let name = name.strip_suffix("-send").or_else(|| name.strip_suffix("-receive"))?;
                Self::Request(match name {
                    "unidirectional" => Carrier::Unidirectional,
                    "bidirectional" => Carrier::Bidirectional,
                    "datagram" => Carrier::Datagram,
                    _ => return None,
                })
            }
        })
    }
}

/// The sessions of one path, and what is requested on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// `https://host:port`; empty for a server, which does not dial.
    pub origin: String,
    /// The first component of the path.
    pub endpoint: String,
    /// The rest of each path.
    pub files: Vec<String>,
}

/// Everything that the runner tells.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ROLE`.
    pub role: Role,
    /// `TESTCASE`.
    pub testcase: TestCase,
    /// `REQUESTS`, by endpoint.
    pub requests: Vec<Requests>,
    /// `PROTOCOLS`, most preferred first.
    pub protocols: Vec<String>,
    /// `WWW`: what is served.
    pub www: PathBuf,
    /// `DOWNLOADS`: where files that were requested go.
    pub downloads: PathBuf,
    /// `CERTS`: `cert.pem` and `priv.key`.
    pub certs: PathBuf,
    /// `QLOGDIR`.
    pub qlog: Option<PathBuf>,
    /// `PORT` of a server; 0 takes a free one.
    pub port: u16,
}

impl Settings {
    /// Reads the environment through `variable`. `None` for a test case that is not known.
    ///
    /// # Errors
    /// Names the variable that is wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let value = |name: &str| variable(name).filter(|value| !value.is_empty());
        let folder = |name: &str, default: &str| PathBuf::from(value(name).unwrap_or_else(|| default.to_owned()));
        let words = |name: &str| -> Vec<String> {
            let text = value(name).unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        };
        // First, because the runner asks with a made-up case, and nothing else, whether an endpoint keeps to this.
        let Some(testcase) = TestCase::parse(&value("TESTCASE").unwrap_or_default()) else {
            return Ok(None);
        };
        let role = match value("ROLE").as_deref() {
            Some("client") => Role::Client,
            Some("server") => Role::Server,
            other => return Err(format!("ROLE is {other:?}; it is client or server").into()),
        };
        let requests = words("REQUESTS").iter().try_fold(Vec::new(), |mut all, request| {
            add(&mut all, role, request).map(|()| all)
        })?;
        if role == Role::Client && requests.is_empty() {
            return Err("REQUESTS names no endpoint: a client has nothing to dial".into());
        }
        let port = value("PORT").map_or(Ok(443), |port| port.parse().map_err(|_| format!("PORT is {port:?}")))?;
        Ok(Some(Self {
            role,
            testcase,
            requests,
            protocols: words("PROTOCOLS"),
            www: folder("WWW", "/www"),
            downloads: folder("DOWNLOADS", "/downloads"),
            certs: folder("CERTS", "/certs"),
            qlog: value("QLOGDIR").map(PathBuf::from),
            port,
        }))
    }

    /// What is requested on the sessions of `endpoint`.
    pub fn files(&self, endpoint: &str) -> &[String] {
        let requests = self.requests.iter().find(|requests| requests.endpoint == endpoint);
        requests.map_or(&[], |requests| &requests.files)
    }
}

/// Adds `https://host:port/endpoint/file`, or `endpoint/file` for a server.
fn add(all: &mut Vec<Requests>, role: Role, request: &str) -> Result {
    let (origin, path) = match role {
        Role::Server => (String::new(), request.trim_start_matches('/').to_owned()),
        Role::Client => {
            let url = url::Url::parse(request).map_err(|error| format!("REQUESTS has {request:?}: {error}"))?;
            (
                url.origin().ascii_serialization(),
                url.path().trim_start_matches('/').to_owned(),
            )
        }
    };
    let (endpoint, file) = path.split_once('/').unwrap_or((&path, ""));
    let position = all
        .iter()
        .position(|known| known.origin == origin && known.endpoint == endpoint);
    let index = position.unwrap_or_else(|| {
        all.push(Requests {
            origin,
            endpoint: endpoint.to_owned(),
            files: Vec::new(),
        });
        all.len() - 1
    });
    if !file.is_empty() {
        all[index].files.push(file.to_owned());
    }
    Ok(())
}

/// `name` within `folder`; `None` if it would lead out of it.
pub fn within(folder: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
    (inside && name.components().next().is_some()).then(|| folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>> {
        Settings::read(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn requests_are_grouped_by_endpoint() {
        let requests = "https://server4:443/a/1 https://server4:443/b https://server4:443/a/sub/2";
        let settings = read(&[
            ("ROLE", "client"),
            ("TESTCASE", "transfer-datagram-receive"),
            ("REQUESTS", requests),
        ]);
        let settings = settings.expect("valid").expect("known");
        assert_eq!(settings.testcase, TestCase::Request(Carrier::Datagram));
        assert_eq!(settings.files("a"), ["1", "sub/2"]);
        assert!(settings.files("b").is_empty());
        assert_eq!(settings.requests.len(), 2);
        assert_eq!(settings.requests[0].origin, "https://server4");
    }

    #[test]
    fn an_unknown_case_is_unsupported_whatever_else_is_missing() {
        assert!(read(&[("TESTCASE", "made-up")]).expect("no error").is_none());
        assert!(read(&[("ROLE", "client"), ("TESTCASE", "handshake")]).is_err());
    }

    #[test]
    fn names_do_not_lead_out_of_their_folder() {
        let folder = Path::new("/www");
        assert_eq!(within(folder, "a/b"), Some(PathBuf::from("/www/a/b")));
        for bad in ["", "../x", "/etc/passwd", "a/../../x", "./x"] {
            assert_eq!(within(folder, bad), None, "{bad}");
        }
    }
}
