//! `WWW-Authenticate`: what a registry wants to be shown. RFC 9110, section 11.6.1.
#![forbid(unsafe_code)]

/// One challenge: its scheme in small letters, and its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

/// More are not looked at.
const MOST: usize = 16;

impl Challenge {
    /// A parameter by its name in small letters.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All challenges of one header, which may hold several. Stops where it is not understood.
    pub(crate) fn parse(header: &str) -> Vec<Challenge> {
        let mut challenges: Vec<Challenge> = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let (word, tail) = token(rest);
            if word.is_empty() || challenges.len() > MOST {
                return challenges;
            }
            let after = tail.trim_start_matches([' ', '\t']);
            match after.strip_prefix('=') {
                // A parameter of the last challenge.
                Some(value) if !challenges.is_empty() => {
                    let Some((value, tail)) = quoted_or_token(value.trim_start_matches([' ', '\t'])) else {
                        return challenges;
                    };
                    if let Some(last) = challenges.last_mut().filter(|last| last.parameters.len() < MOST) {
                        last.parameters.push((word.to_ascii_lowercase(), value));
                    }
                    rest = tail;
                }
                Some(_) => return challenges,
                None => {
                    challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                    rest = after;
                }
            }
        }
    }
}

/// The token at the beginning, and what follows.
fn token(text: &str) -> (&str, &str) {
    let of_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !of_token(c)).unwrap_or(text.len()))
}

/// The value at the beginning, and what follows; `None` for a quoted string without end.
fn quoted_or_token(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_their_parameters() {
        let all = Challenge::parse(
            r#"Bearer realm="https://auth.test/token",service="r, test",scope="repository:a/b:pull,push", Basic realm="x\"y""#,
        );
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].scheme, "bearer");
        assert_eq!(all[0].get("realm"), Some("https://auth.test/token"));
        assert_eq!(all[0].get("service"), Some("r, test"));
        assert_eq!(all[0].get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!((all[1].scheme.as_str(), all[1].get("realm")), ("basic", Some("x\"y")));
    }

    #[test]
    fn plain_values_and_odd_spaces() {
        let all = Challenge::parse("  bearer  realm = http://a.test/t , Service=x,,  Negotiate");
        assert_eq!(all[0].get("realm"), Some("http://a.test/t"));
        assert_eq!(all[0].get("service"), Some("x"));
        assert_eq!(all[1].scheme, "negotiate");
    }

    #[test]
    fn what_is_not_understood_ends_it() {
        for text in ["", "=", "\"", ",,,", "realm=\"x\"", "é"] {
            assert_eq!(Challenge::parse(text), [], "{text}");
        }
        assert_eq!(Challenge::parse("Bearer realm=\"open").len(), 1);
        assert_eq!(Challenge::parse("Bearer realm=\"open").first().and_then(|one| one.get("realm")), None);
        assert!(Challenge::parse(&"a, ".repeat(100_000)).len() < 100);
        assert!(Challenge::parse(&format!("a {}", "b=c,".repeat(100_000))).len() == 1);
    }
}
