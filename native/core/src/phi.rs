//! Patient identifiers in text: US social security numbers, Korean resident registration numbers with their checksum,
//! labelled medical record numbers, payment cards with Luhn's check, tables with columns of such names; FHIR patients.
//!
//! Aware of word boundaries, and rather silent than wrong: a number that merely has the right length does not count.

use crate::content::read::find;

/// What was found, counts of each kind (saturating).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// US social security numbers.
    pub ssn: u16,
    /// Korean resident registration numbers.
    pub rrn: u16,
    /// Labelled medical record or patient numbers.
    pub mrn: u16,
    /// Payment card numbers.
    pub card: u16,
    /// Columns of a table's head that name identifiers.
    pub columns: u16,
    /// Numbers that had a card's shape, valid or not.
    shaped: u16,
}

impl Found {
    /// Identifiers found. Cards count only where most numbers of their shape are valid: in a list of arbitrary
    /// numbers one in ten passes Luhn's check.
    pub fn hits(&self) -> u16 {
        let cards = if u32::from(self.card) * 2 > u32::from(self.shaped) {
            self.card
        } else {
            0
        };
        self.ssn
            .saturating_add(self.rrn)
            .saturating_add(self.mrn)
            .saturating_add(cards)
            .saturating_add(self.columns)
    }

    /// Several identifiers: more than one, or a table of them.
    pub fn several(&self) -> bool {
        self.hits() > 1
    }

    /// Adds what a piece of text holds; numbers cut at its edges do not count.
    pub fn scan(&mut self, bytes: &[u8]) {
        self.head_of_table(bytes);
        let mut at = 0;
        while at < bytes.len() {
            if !bytes[at].is_ascii_digit() {
                at += 1;
                continue;
            }
            let end = at
                + bytes[at..]
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count();
            let free = at > 0 && !glued(bytes[at - 1]) || at == 0;
            if free {
                let next = self.number(bytes, at, end);
                at = next.max(end);
            } else {
                at = end;
            }
        }
    }

    /// Looks at the number that starts at `at`, its first run of digits ending at `end`; returns where it ends.
    fn number(&mut self, bytes: &[u8], at: usize, end: usize) -> usize {
        let digits = end - at;
        match digits {
            3 => {
                if let Some(stop) = ssn(bytes, at) {
                    self.ssn = self.ssn.saturating_add(1);
                    return stop;
                }
            }
            6 => {
                if let Some(stop) = rrn(bytes, at) {
                    self.rrn = self.rrn.saturating_add(1);
                    return stop;
                }
            }
            4 | 13..=19 => {
                if let Some((stop, valid)) = card(bytes, at, end) {
                    self.shaped = self.shaped.saturating_add(1);
                    self.card = self.card.saturating_add(u16::from(valid));
                    return stop;
                }
            }
            _ => {}
        }
        if (5..=12).contains(&digits)
            && !bytes.get(end).copied().is_some_and(glued)
            && labelled(&bytes[..at])
        {
            self.mrn = self.mrn.saturating_add(1);
        }
        end
    }

    /// Columns of the first line that name identifiers, where another line follows.
    fn head_of_table(&mut self, bytes: &[u8]) {
        let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(2048)]) else {
            return;
        };
        let line = &bytes[..end];
        if end + 8 > bytes.len() || !line.iter().any(|b| b",;\t|".contains(b)) {
            return;
        }
        let mut columns = 0u16;
        for cell in line.split(|b| b",;\t|".contains(b)) {
            let mut name = [0u8; 24];
            let mut n = 0;
            for b in cell.iter().filter(|b| b.is_ascii_alphanumeric()).take(24) {
                name[n] = b.to_ascii_lowercase();
                n += 1;
            }
            columns += u16::from(COLUMNS.contains(&&name[..n]));
        }
        if columns >= 2 {
            self.columns = self.columns.saturating_add(columns);
        }
    }
}

/// Names of columns, letters and digits only, lower case.
const COLUMNS: [&[u8]; 24] = [
    b"mrn",
    b"patientid",
    b"patientname",
    b"patid",
    b"ptid",
    b"medicalrecordnumber",
    b"ssn",
    b"socialsecuritynumber",
    b"dob",
    b"dateofbirth",
    b"birthdate",
    b"patientdob",
    b"diagnosis",
    b"icd10",
    b"icd10code",
    b"healthplanid",
    b"insuranceid",
    b"memberid",
    b"nhsnumber",
    b"rrn",
    b"patientaddress",
    b"admissiondate",
    b"patientphone",
    b"medicareid",
];

/// A byte that makes a number part of something longer.
fn glued(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/') || b >= 0x80
}

/// A byte that, after a number, makes it part of something longer; a full stop may end a sentence.
fn goes_on(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at) {
        None => true, // cut at the sample's edge or the end of the text: not certain
        Some(b'.') => bytes.get(at + 1).is_some_and(u8::is_ascii_alphanumeric),
        Some(b) => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/'),
    }
}

fn all_digits(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_digit)
}

/// `AAA-GG-SSSS` with an area, group and serial that are given out.
fn ssn(bytes: &[u8], at: usize) -> Option<usize> {
    let b = bytes.get(at..at + 11)?;
    let shape = b[3] == b'-' && b[6] == b'-' && all_digits(&b[4..6]) && all_digits(&b[7..11]);
    let ends = at + 11 == bytes.len() || !goes_on(bytes, at + 11);
    let area = &b[..3];
    let given = area != b"000"
        && area != b"666"
        && area[0] != b'9'
        && &b[4..6] != b"00"
        && &b[7..] != b"0000";
    let sample = b == b"123-45-6789" || b == b"078-05-1120" || b == b"111-11-1111";
    (shape && ends && given && !sample).then_some(at + 11)
}

/// `YYMMDD-GNNNNNC`: a date of birth, a century, and the check digit.
fn rrn(bytes: &[u8], at: usize) -> Option<usize> {
    let b = bytes.get(at..at + 14)?;
    if b[6] != b'-' || !all_digits(&b[7..]) || !(b'1'..=b'8').contains(&b[7]) {
        return None;
    }
    if at + 14 != bytes.len() && goes_on(bytes, at + 14) {
        return None;
    }
    let d = |i: usize| u32::from(b[i] - b'0');
    let (month, day) = (d(2) * 10 + d(3), d(4) * 10 + d(5));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let weights = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5];
    let places = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12];
    let sum: u32 = places.iter().zip(weights).map(|(p, w)| d(*p) * w).sum();
    ((11 - sum % 11) % 10 == d(13)).then_some(at + 14)
}

/// 13 to 19 digits of a known issuer, in one run or in groups; where it ends, and whether Luhn's check holds.
fn card(bytes: &[u8], at: usize, end: usize) -> Option<(usize, bool)> {
    let mut digits = [0u8; 19];
    let mut n = 0;
    let mut stop = at;
    let mut groups = 0;
    let separator = bytes.get(end).copied().filter(|b| matches!(b, b' ' | b'-'));
    if end - at == 4 {
        separator?;
    }
    while let Some(b) = bytes.get(stop) {
        if b.is_ascii_digit() {
            *digits.get_mut(n)? = b - b'0';
            n += 1;
            stop += 1;
        } else if Some(*b) == separator
            && end - at == 4
            && groups < 4
            && bytes.get(stop + 1).is_some_and(u8::is_ascii_digit)
        {
            groups += 1;
            stop += 1;
        } else {
            break;
        }
    }
    if stop != bytes.len() && goes_on(bytes, stop) {
        return None;
    }
    let d = &digits[..n];
    let two = u32::from(*d.first()?) * 10 + u32::from(*d.get(1)?);
    let issuer = matches!(
        (n, two),
        (13 | 16 | 19, 40..=49)
            | (16, 22..=27 | 35 | 51..=55)
            | (15, 34 | 37)
            | (16..=19, 60 | 62 | 64 | 65)
    );
    if !issuer || d.iter().all(|x| *x == d[0]) {
        return None;
    }
    let sum: u32 = d
        .iter()
        .rev()
        .enumerate()
        .map(|(i, x)| {
            let x = u32::from(*x);
            match (i % 2, x * 2) {
                (0, _) => x,
                (_, y) if y > 9 => y - 9,
                (_, y) => y,
            }
        })
        .sum();
    Some((stop, sum % 10 == 0))
}

/// Whether the text just before a number calls it a medical record or patient number.
fn labelled(before: &[u8]) -> bool {
    let tail = &before[before.len().saturating_sub(32)..];
    let line = tail
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(tail, |i| &tail[i + 1..]);
    let mut word = [0u8; 32];
    let mut n = 0;
    for b in line {
        word[n] = b.to_ascii_lowercase();
        n += 1;
    }
    let text = &word[..n];
    let label = text.trim_ascii_end();
    let label = label
        .strip_suffix(b"\"")
        .or_else(|| label.strip_suffix(b"'"))
        .unwrap_or(label)
        .trim_ascii_end();
    let stripped = label
        .iter()
        .rposition(|b| !matches!(b, b':' | b'#' | b'=' | b' ' | b'"' | b'\'' | b'>' | b'.'))
        .map_or(&label[..0], |i| &label[..=i]);
    let strip = |suffix: &[u8]| stripped.strip_suffix(suffix).unwrap_or(stripped);
    let stripped = if stripped.ends_with(b" is") {
        strip(b" is")
    } else {
        stripped
    };
    LABELS.iter().any(|l| {
        stripped
            .strip_suffix(*l)
            .is_some_and(|rest| !rest.last().is_some_and(u8::is_ascii_alphanumeric))
    })
}

const LABELS: [&[u8]; 14] = [
    b"mrn",
    b"mrn no",
    b"mrn number",
    b"medical record number",
    b"medical record no",
    b"medical record",
    b"med rec no",
    b"med. rec. no",
    b"patient id",
    b"patientid",
    b"patient_id",
    b"patient number",
    b"patient no",
    b"hospital number",
];

/// Whether a FHIR resource or bundle holds a patient with a name, birth date or identifier.
pub fn fhir_patient(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, b"\"resourceType\"").any(|at| {
        let rest = body[at + 14..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b":") else {
            return false;
        };
        rest.trim_ascii_start().starts_with(b"\"Patient\"")
            && [
                &b"\"name\""[..],
                b"\"birthDate\"",
                b"\"identifier\"",
                b"\"telecom\"",
                b"\"address\"",
            ]
            .iter()
            .any(|field| find(body, field).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Found {
        let mut found = Found::default();
        found.scan(text.as_bytes());
        found
    }

    #[test]
    fn identifiers_are_found() {
        assert_eq!(found("SSN: 219-09-9999, next").ssn, 1);
        assert_eq!(found("rrn 900101-1234568 end").rrn, 1);
        assert_eq!(found("MRN: 00482913\n").mrn, 1);
        assert_eq!(found("Patient ID #4829131;").mrn, 1);
        assert_eq!(found("\"mrn\": \"4829131\"").mrn, 1);
        assert_eq!(found("card 4111 1111 1111 1111.").hits(), 1);
        assert_eq!(found("card 4111111111111111\n").hits(), 1);
        assert_eq!(found("mrn,name,dob\n48291,Doe,1970-01-01\n").columns, 2);
    }

    #[test]
    fn what_only_looks_like_one_is_not() {
        for text in [
            "part 219-09-99991 x",
            "tel 1-219-09-9999 x",
            "000-12-3456 ",
            "900-12-3456 ",
            "rrn 900101-1234567 end",
            "rrn 901301-1234568 end",
            "card 4111111111111112\n",
            "1.2.840.113619.2.55.3.604688119.971.1234567890.123\n",
            "uuid 4111-1111-1111 x",
            "commit 4111111111111111abc\n",
            "order 4829131\n",
            "amrn: 4829131\n",
            "timestamp 1700000000000000000\n",
        ] {
            assert_eq!(found(text).hits(), 0, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Found::default().scan(&bytes);
            fhir_patient(&bytes);
        }

        #[test]
        fn digits_and_signs_never_panic(text in "[0-9 \\-.,;:#a-zMRN\n]{0,200}") {
            found(&text);
        }
    }
}
