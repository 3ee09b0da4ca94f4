//! Why a pair cannot pass a case. What is not here is a failure.

/// A client, a server and a case (`*` is any), and the reason.
const REASONS: [(&str, &str, &str, &str); 0] = [];

/// The reason, if it is known.
pub fn find(client: &str, server: &str, case: &str) -> Option<&'static str> {
    let matches = |pattern: &str, value: &str| pattern == "*" || pattern == value;
    let found = REASONS
        .iter()
        .find(|(c, s, name, _)| matches(c, client) && matches(s, server) && matches(name, case));
    found.map(|(.., reason)| *reason)
}
