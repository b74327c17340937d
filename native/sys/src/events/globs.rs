//! Which names are left out: shell globs over bytes.

/// Patterns of one tree. Without a slash a pattern matches the last name at any depth; with one it is anchored at
/// the root. `*` and `?` stay inside one name, `**` crosses, `[a-z]` and `[!a-z]` are sets, a backslash quotes, and a
/// final slash matches directories only.
#[derive(Debug, Default, Clone)]
pub struct Globs {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    text: Box<[u8]>,
    whole_path: bool,
    directories_only: bool,
}

impl Globs {
    /// Compiles patterns; empty ones match nothing.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let patterns = patterns
            .into_iter()
            .filter_map(|given| {
                let directories_only = given.last() == Some(&b'/');
                let text = given.strip_suffix(b"/").unwrap_or(given);
                let whole_path = text.contains(&b'/');
                let text = text.strip_prefix(b"/").unwrap_or(text);
                (!text.is_empty()).then(|| Pattern {
                    text: text.into(),
                    whole_path,
                    directories_only,
                })
            })
            .collect();
        Globs { patterns }
    }

    /// Whether there are no patterns at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `path` (relative to the root, no leading slash) is left out.
    pub fn matches(&self, path: &[u8], directory: bool) -> bool {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        self.patterns
            .iter()
            .filter(|p| directory || !p.directories_only)
            .any(|p| glob(&p.text, if p.whole_path { path } else { name }))
    }
}

/// Steps of matching per pattern: a hostile name against a pattern of many stars must not take the reader's time.
const STEPS: usize = 100_000;

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // where to go on after a mismatch: (pattern after the star, text position, crosses slashes)
    let mut back: Vec<(usize, usize, bool)> = Vec::new();
    for _ in 0..STEPS {
        let matched = match pattern.get(p) {
            None if t == text.len() => return true,
            None => false,
            Some(b'*') => {
                let deep = pattern.get(p + 1) == Some(&b'*');
                p += if deep { 2 } else { 1 };
                if deep && pattern.get(p) == Some(&b'/') && (t == 0 || text[t - 1] == b'/') {
                    p += 1; // `**/x` also matches `x`
                    back.push((p - 1, t, true));
                    true
                } else {
                    back.push((p, t, deep));
                    true
                }
            }
            Some(_) if t == text.len() => false,
            Some(b'?') if text[t] != b'/' => {
                p += 1;
                t += 1;
                true
            }
            Some(b'[') => match set(&pattern[p..], text[t]) {
                Some((used, true)) => {
                    p += used;
                    t += 1;
                    true
                }
                Some(_) => false,
                None if text[t] == b'[' => {
                    p += 1;
                    t += 1;
                    true
                }
                None => false,
            },
            Some(b'\\') if pattern.get(p + 1) == Some(&text[t]) => {
                p += 2;
                t += 1;
                true
            }
            Some(&c) if c == text[t] && c != b'?' && c != b'\\' => {
                p += 1;
                t += 1;
                true
            }
            Some(_) => false,
        };
        if matched {
            continue;
        }
        loop {
            let Some((after, at, deep)) = back.pop() else {
                return false;
            };
            if at < text.len() && (deep || text[at] != b'/') {
                back.push((after, at + 1, deep));
                (p, t) = (after, at + 1);
                break;
            }
        }
    }
    false
}

/// Matches one byte against a set that begins at `[`: (length of the set in the pattern, whether it matched).
fn set(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    let mut at = first;
    let mut found = false;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return Some((at + 1, byte != b'/' && found != negated));
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                found |= (low..=high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= low == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(pattern: &str, path: &str, directory: bool) -> bool {
        Globs::new([pattern.as_bytes()]).matches(path.as_bytes(), directory)
    }

    #[test]
    fn globs_match_as_written() {
        assert!(hit("*.tmp", "a/b/x.tmp", false));
        assert!(!hit("*.tmp", "a/b.tmp/x", false));
        assert!(hit("cache/", "a/cache", true));
        assert!(!hit("cache/", "a/cache", false));
        assert!(hit("/top", "top", false));
        assert!(!hit("/top", "a/top", false));
        assert!(hit("a/*/c", "a/b/c", false));
        assert!(!hit("a/*/c", "a/b/b/c", false));
        assert!(hit("a/**/c", "a/b/b/c", false));
        assert!(hit("a/**/c", "a/c", false));
        assert!(hit("**/c", "c", false));
        assert!(hit("a/**", "a/b/c", false));
        assert!(hit("[a-c]?[!x]", "b1y", false));
        assert!(!hit("[a-c]?[!x]", "b1x", false));
        assert!(hit("\\*", "*", false));
        assert!(!hit("\\*", "x", false));
        assert!(!hit("", "x", false));
    }

    #[test]
    fn many_stars_end() {
        let stars = "*a".repeat(40) + "b";
        assert!(!hit(&stars, &"a".repeat(255), false));
    }
}
