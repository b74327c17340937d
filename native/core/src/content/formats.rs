//! The table of formats: name, class, extensions, magic numbers, and the check of the structure behind the magic.
//!
//! A magic number alone proves nothing: anybody can write eight bytes. A format is well-formed ([`Check::structure`])
//! when its own structure parses as far as the samples reach; where a format has nothing to check, its samples must at
//! least not look encrypted. The checks live in the modules beside this one.

use super::Samples;
use super::{archive, clinical, data, document, image, media, program, sealed, stream, text};

/// What people use a format for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing is known.
    Unknown,
    /// Holds several files.
    Archive,
    /// One compressed stream.
    Stream,
    /// Text, tables, slides for people.
    Document,
    /// A picture.
    Image,
    /// Sound or film.
    Media,
    /// Clinical data.
    Clinical,
    /// Databases, arrays, stores.
    Data,
    /// Plain text of some kind.
    Text,
    /// Something that runs.
    Program,
    /// Encrypted by a known tool.
    Encrypted,
    /// Another spelling of any bytes (base64, hexadecimal): no kind of content.
    Encoding,
}

/// What a format's check found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Check {
    /// The structure parses as far as the samples reach.
    pub structure: bool,
    /// The end of the file is as it must be.
    pub tail: bool,
    /// It declares encryption.
    pub declares: bool,
    /// A sample of compressed content was decoded.
    pub decoded: bool,
    /// It is this more precise format.
    pub refined: Option<Id>,
    /// Flags of [`crate::facts::flags`] to add (patient data, script).
    pub flags: u64,
}

impl Check {
    /// Structure and tail have one answer.
    pub fn both(ok: bool) -> Option<Self> {
        Some(Check {
            structure: ok,
            tail: ok,
            ..Check::default()
        })
    }
    /// Structure and tail.
    pub fn of(structure: bool, tail: bool) -> Option<Self> {
        Some(Check {
            structure,
            tail,
            ..Check::default()
        })
    }
    /// Encrypted by a known tool.
    pub fn sealed(structure: bool) -> Option<Self> {
        Some(Check {
            structure,
            tail: structure,
            declares: true,
            ..Check::default()
        })
    }
}

/// What a check may look at.
pub struct Context<'a> {
    /// The samples.
    pub samples: &'a Samples<'a>,
    /// Extension in lower case, empty where there is none.
    pub extension: &'a [u8],
    /// How encrypted head, middle and tail look.
    pub encrypted_like: [f32; 3],
    /// All samples are text.
    pub text: bool,
    /// Room for decoded bytes.
    pub scratch: std::cell::RefCell<[u8; super::inflate::DECODED]>,
    /// Decoded bytes in `scratch`.
    pub decoded: std::cell::Cell<usize>,
}

impl Context<'_> {
    /// First bytes of the file, all of it where it is small.
    pub fn head(&self) -> &[u8] {
        self.samples.head
    }
    /// Size of the file.
    pub fn size(&self) -> u64 {
        self.samples.size
    }
    /// Last bytes of the file, as many as the samples hold.
    pub fn end(&self) -> &[u8] {
        if self.samples.complete {
            self.samples.head
        } else {
            self.samples.tail
        }
    }
    /// `length` bytes at an offset of the file, where the samples hold them.
    pub fn at(&self, offset: u64, length: usize) -> Option<&[u8]> {
        self.samples.at(offset, length)
    }
    /// Middle and tail do not look encrypted.
    pub fn plain(&self) -> bool {
        self.encrypted_like[1] < 0.5 && self.encrypted_like[2] < 0.5
    }
    /// Decodes deflate or zlib data, keeping what came out.
    pub fn inflates(&self, bytes: &[u8], zlib: bool) -> Option<super::inflate::Decoded> {
        let mut out = self.scratch.borrow_mut();
        let decoded = super::inflate::deflate(bytes, zlib, &mut out)?;
        self.decoded.set(decoded.length);
        Some(decoded)
    }
}

/// A magic number: offset and bytes.
pub type Magic = (usize, &'static [u8]);

/// One format.
pub struct Format {
    /// Its number.
    pub id: Id,
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub class: Class,
    /// Formats with one family are readings of one another.
    pub family: Id,
    /// Extensions, lower case.
    pub extensions: &'static [&'static str],
    /// Magic numbers, one of which must stand.
    pub magic: &'static [Magic],
    /// Whether it is what the magic says, and how well-formed; none where it is not.
    pub check: fn(&Context<'_>) -> Option<Check>,
}

macro_rules! formats {
    ($($id:ident $name:literal $class:ident $family:ident [$($ext:literal)*] [$($off:literal $magic:literal)*] $check:expr;)*) => {
        /// Number of a format: its index in [`FORMATS`].
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Id { $($id),* }
        /// All formats.
        pub static FORMATS: &[Format] = &[$(Format {
            id: Id::$id, name: $name, class: Class::$class, family: Id::$family,
            extensions: &[$($ext),*], magic: &[$(($off, $magic)),*], check: $check,
        }),*];
    };
}

/// Nothing to check beyond the magic: the samples must not look encrypted.
fn plain(c: &Context<'_>) -> Option<Check> {
    Check::both(c.plain() && c.encrypted_like[0] < 0.5)
}

/// A format that only [`text`] or an extension names, never a magic number.
fn never(_: &Context<'_>) -> Option<Check> {
    None
}

#[rustfmt::skip]
formats! {
    Unknown "unknown" Unknown Unknown [] [] never;
    // archives
    Zip "zip" Archive Zip ["zip" "cbz" "kmz" "whl" "xpi" "nupkg" "vsix"] [0 b"PK\x03\x04" 0 b"PK\x05\x06"] archive::zip;
    Docx "docx" Document Zip ["docx" "docm" "dotx"] [] never;
    Xlsx "xlsx" Document Zip ["xlsx" "xlsm" "xltx"] [] never;
    Pptx "pptx" Document Zip ["pptx" "pptm" "potx" "ppsx"] [] never;
    Odf "odf" Document Zip ["odt" "ods" "odp" "odg" "ott" "ots"] [] never;
    Epub "epub" Document Zip ["epub"] [] never;
    Jar "jar" Archive Zip ["jar" "war" "ear" "apk" "aar"] [] never;
    Tar "tar" Archive Tar ["tar" "gem" "ova"] [257 b"ustar"] archive::tar;
    SevenZip "7z" Archive SevenZip ["7z" "cb7"] [0 b"7z\xbc\xaf\x27\x1c"] archive::seven_zip;
    Rar "rar" Archive Rar ["rar" "cbr"] [0 b"Rar!\x1a\x07"] archive::rar;
    Cpio "cpio" Archive Cpio ["cpio"] [0 b"070701" 0 b"070702" 0 b"070707"] archive::cpio;
    Ar "ar" Archive Ar ["a" "deb" "ipk"] [0 b"!<arch>\n"] archive::ar;
    Rpm "rpm" Archive Rpm ["rpm"] [0 b"\xed\xab\xee\xdb"] archive::rpm;
    Cab "cab" Archive Cab ["cab"] [0 b"MSCF\0\0\0\0"] archive::cab;
    // streams
    Gzip "gzip" Stream Gzip ["gz" "tgz" "svgz" "gzip" "mgz"] [0 b"\x1f\x8b\x08"] stream::gzip;
    Bzip2 "bzip2" Stream Bzip2 ["bz2" "tbz" "tbz2" "bz"] [0 b"BZh"] stream::bzip2;
    Xz "xz" Stream Xz ["xz" "txz"] [0 b"\xfd7zXZ\0"] stream::xz;
    Zstd "zstd" Stream Zstd ["zst" "tzst" "zstd"] [0 b"\x28\xb5\x2f\xfd" 0 b"\x50\x2a\x4d\x18" 0 b"\x51\x2a\x4d\x18" 0 b"\x5d\x2a\x4d\x18"] stream::zstd;
    Lz4 "lz4" Stream Lz4 ["lz4"] [0 b"\x04\x22\x4d\x18" 0 b"\x02\x21\x4c\x18"] stream::lz4;
    Lzip "lzip" Stream Lzip ["lz" "tlz"] [0 b"LZIP"] stream::lzip;
    Lzop "lzop" Stream Lzop ["lzo" "tzo"] [0 b"\x89LZO\0\r\n\x1a\n"] stream::lzop;
    Lzma "lzma" Stream Lzma ["lzma"] [0 b"\x5d\0\0"] stream::lzma;
    Compress "compress" Stream Compress ["z"] [0 b"\x1f\x9d"] stream::compress;
    Zlib "zlib" Stream Zlib ["zlib" "zz"] [0 b"\x78\x01" 0 b"\x78\x5e" 0 b"\x78\x9c" 0 b"\x78\xda"] stream::zlib;
    Snappy "snappy" Stream Snappy ["sz" "snappy"] [0 b"\xff\x06\0\0sNaPpY"] stream::snappy;
    Lrzip "lrzip" Stream Lrzip ["lrz"] [0 b"LRZI"] stream::lrzip;
    // documents
    Pdf "pdf" Document Pdf ["pdf"] [0 b"%PDF-"] document::pdf;
    Rtf "rtf" Document Rtf ["rtf"] [0 b"{\\rtf"] document::rtf;
    Ole2 "ole2" Document Ole2 ["doc" "xls" "ppt" "msg" "dot" "msi" "pps" "vsd" "mpp" "pub"] [0 b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"] document::ole2;
    Ps "postscript" Document Ps ["ps" "eps"] [0 b"%!PS"] document::postscript;
    Djvu "djvu" Document Djvu ["djvu" "djv"] [0 b"AT&TFORM"] plain;
    // pictures
    Png "png" Image Png ["png" "apng"] [0 b"\x89PNG\r\n\x1a\n"] image::png;
    Jpeg "jpeg" Image Jpeg ["jpg" "jpeg" "jpe" "jfif"] [0 b"\xff\xd8\xff"] image::jpeg;
    Gif "gif" Image Gif ["gif"] [0 b"GIF87a" 0 b"GIF89a"] image::gif;
    Tiff "tiff" Image Tiff ["tif" "tiff" "svs" "ndpi" "scn" "dng"] [0 b"II*\0" 0 b"MM\0*" 0 b"II+\0" 0 b"MM\0+"] image::tiff;
    Bmp "bmp" Image Bmp ["bmp" "dib"] [0 b"BM"] image::bmp;
    Webp "webp" Image Webp ["webp"] [8 b"WEBP"] media::riff;
    Jp2 "jp2" Image Jp2 ["jp2" "jpx" "jpm"] [0 b"\0\0\0\x0cjP  \r\n\x87\n"] image::jp2;
    J2k "j2k" Image Jp2 ["j2k" "j2c" "jpc"] [0 b"\xff\x4f\xff\x51"] image::j2k;
    Jxl "jxl" Image Jxl ["jxl"] [0 b"\xff\x0a" 0 b"\0\0\0\x0cJXL \r\n\x87\n"] image::jxl;
    Ico "ico" Image Ico ["ico" "cur"] [0 b"\0\0\x01\0" 0 b"\0\0\x02\0"] image::ico;
    Pnm "pnm" Image Pnm ["pbm" "pgm" "ppm" "pnm" "pam"] [0 b"P1\n" 0 b"P2\n" 0 b"P3\n" 0 b"P4\n" 0 b"P5\n" 0 b"P6\n" 0 b"P7\n" 0 b"P5 " 0 b"P6 "] image::pnm;
    // sound and film
    Wav "wav" Media Wav ["wav"] [8 b"WAVE"] media::riff;
    Avi "avi" Media Avi ["avi"] [8 b"AVI "] media::riff;
    Mp4 "mp4" Media Mp4 ["mp4" "m4v" "m4a" "mov" "heic" "heif" "avif" "3gp"] [4 b"ftyp" 4 b"moov" 4 b"mdat" 4 b"wide"] media::mp4;
    Mp3 "mp3" Media Mp3 ["mp3"] [0 b"ID3" 0 b"\xff\xfb" 0 b"\xff\xf3" 0 b"\xff\xf2"] media::mp3;
    Ogg "ogg" Media Ogg ["ogg" "oga" "ogv" "opus"] [0 b"OggS\0"] media::ogg;
    Flac "flac" Media Flac ["flac"] [0 b"fLaC"] media::flac;
    Matroska "matroska" Media Matroska ["mkv" "webm" "mka"] [0 b"\x1a\x45\xdf\xa3"] media::matroska;
    Flv "flv" Media Flv ["flv"] [0 b"FLV\x01"] plain;
    // clinical
    Dicom "dicom" Clinical Dicom ["dcm" "dicom" "ima"] [128 b"DICM"] clinical::dicom;
    DicomBare "dicom-bare" Clinical Dicom [] [0 b"\x08\0" 0 b"\x02\0"] clinical::dicom_bare;
    Nifti "nifti" Clinical Nifti ["nii" "hdr"] [344 b"n+1\0" 344 b"ni1\0" 4 b"n+2\0" 4 b"ni2\0"] clinical::nifti;
    Nrrd "nrrd" Clinical Nrrd ["nrrd" "nhdr"] [0 b"NRRD000"] clinical::nrrd;
    Hl7 "hl7" Clinical Text ["hl7" "er7"] [0 b"MSH|" 0 b"\x0bMSH|" 0 b"FHS|" 0 b"BHS|"] clinical::hl7;
    Fhir "fhir" Clinical Text ["fhir"] [] never;
    Cda "cda" Clinical Text ["cda" "ccd"] [] never;
    Edf "edf" Clinical Edf ["edf" "bdf"] [0 b"0       " 0 b"\xffBIOSEMI"] clinical::edf;
    // data
    Sqlite "sqlite" Data Sqlite ["sqlite" "sqlite3" "db" "db3"] [0 b"SQLite format 3\0"] data::sqlite;
    SqliteWal "sqlite-wal" Data SqliteWal ["db-wal" "sqlite-wal"] [0 b"\x37\x7f\x06\x82" 0 b"\x37\x7f\x06\x83"] data::sqlite_wal;
    SqliteJournal "sqlite-journal" Data SqliteJournal ["db-journal"] [0 b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"] data::sqlite_journal;
    Parquet "parquet" Data Parquet ["parquet"] [0 b"PAR1" 0 b"PARE"] data::parquet;
    Hdf5 "hdf5" Data Hdf5 ["h5" "hdf5" "hdf" "nc" "mat"] [0 b"\x89HDF\r\n\x1a\n"] data::hdf5;
    Npy "npy" Data Npy ["npy"] [0 b"\x93NUMPY"] data::npy;
    Arrow "arrow" Data Arrow ["arrow" "feather"] [0 b"ARROW1\0\0"] data::arrow;
    Matlab "matlab" Data Matlab [] [0 b"MATLAB 5.0 MAT-file"] plain;
    PgDump "pgdump" Data PgDump ["dump" "pgdump"] [0 b"PGDMP"] data::pg_dump;
    Pcap "pcap" Data Pcap ["pcap" "cap" "pcapng"] [0 b"\xd4\xc3\xb2\xa1" 0 b"\xa1\xb2\xc3\xd4" 0 b"\x0a\x0d\x0d\x0a"] plain;
    Pack "git-pack" Data Pack ["pack"] [0 b"PACK\0\0\0"] data::git_pack;
    GitIndex "git-index" Data GitIndex ["idx"] [0 b"DIRC\0\0\0" 0 b"\xfftOc\0\0\0\x02"] data::git_index;
    Journald "journald" Data Journald ["journal"] [0 b"LPKSHHRH"] plain;
    Pickle "pickle" Data Pickle ["pkl" "pickle"] [0 b"\x80\x02" 0 b"\x80\x03" 0 b"\x80\x04\x95" 0 b"\x80\x05\x95"] data::pickle;
    Font "font" Data Font ["ttf" "otf" "ttc" "woff" "woff2"] [0 b"\0\x01\0\0\0" 0 b"OTTO\0" 0 b"ttcf\0" 0 b"wOFF" 0 b"wOF2"] data::font;
    Gettext "gettext" Data Gettext ["mo"] [0 b"\xde\x12\x04\x95" 0 b"\x95\x04\x12\xde"] data::gettext;
    Tzif "tzif" Data Tzif [] [0 b"TZif"] plain;
    Pem "pem" Data Text ["pem" "crt" "cer" "key" "csr"] [0 b"-----BEGIN "] text::pem;
    Der "der" Data Der ["der" "p12" "pfx" "p7b" "p7m" "p7c"] [0 b"\x30\x80" 0 b"\x30\x82" 0 b"\x30\x83"] sealed::der;
    Lmdb "lmdb" Data Lmdb ["mdb"] [16 b"\xde\xc0\xef\xbe"] plain;
    Disk "disk-image" Data Disk ["qcow2" "vmdk" "vdi"] [0 b"QFI\xfb" 0 b"KDMV\x01\0\0\0" 64 b"\x7f\x10\xda\xbe"] plain;
    // text
    Text "text" Text Text ["txt" "text" "log" "md" "rst" "conf" "cfg" "ini" "toml" "yaml" "yml" "tex" "c" "h" "cc" "cpp" "hpp" "rs" "go" "java" "css" "diff" "patch" "srt" "ics" "vcf" "po" "properties" "sql" "r"] [] never;
    Csv "csv" Text Text ["csv" "tsv" "psv"] [] never;
    Json "json" Text Text ["json" "ndjson" "jsonl" "geojson" "ipynb" "webmanifest"] [] never;
    Xml "xml" Text Text ["xml" "xsd" "xsl" "xslt" "svg" "plist" "rss" "kml" "xhtml"] [] never;
    Html "html" Text Text ["html" "htm"] [] never;
    Mbox "mbox" Text Text ["mbox" "eml"] [] never;
    Script "script" Program Text ["sh" "bash" "py" "pl" "rb" "php" "js" "mjs" "ps1" "bat" "cmd" "vbs" "lua" "tcl" "awk"] [] never;
    // programs
    Elf "elf" Program Elf ["so" "o" "ko" "elf" "bin" "out"] [0 b"\x7fELF"] program::elf;
    Pe "pe" Program Pe ["exe" "dll" "sys" "scr" "efi" "ocx" "com"] [0 b"MZ"] program::pe;
    MachO "macho" Program MachO ["dylib"] [0 b"\xcf\xfa\xed\xfe" 0 b"\xce\xfa\xed\xfe" 0 b"\xfe\xed\xfa\xce" 0 b"\xfe\xed\xfa\xcf" 0 b"\xca\xfe\xba\xbe"] program::macho;
    Class "java-class" Program Class ["class"] [] never;
    Wasm "wasm" Program Wasm ["wasm"] [0 b"\0asm\x01\0\0\0"] program::wasm;
    Pyc "pyc" Program Pyc ["pyc"] [2 b"\r\n"] program::pyc;
    // encrypted by a known tool
    Gpg "gpg" Encrypted Gpg ["gpg" "pgp"] [] never;
    GpgArmor "gpg-armor" Encrypted Gpg ["asc"] [0 b"-----BEGIN PGP MESSAGE-----"] sealed::armor;
    Age "age" Encrypted Age ["age"] [0 b"age-encryption.org/v1\n-> " 0 b"-----BEGIN AGE ENCRYPTED FILE-----"] sealed::age;
    OpenSsl "openssl" Encrypted OpenSsl ["enc"] [0 b"Salted__" 0 b"U2FsdGVkX1"] sealed::openssl;
    Luks "luks" Encrypted Luks ["luks"] [0 b"LUKS\xba\xbe\0"] sealed::header;
    Keepass "keepass" Encrypted Keepass ["kdbx" "kdb"] [0 b"\x03\xd9\xa2\x9a\x67\xfb\x4b\xb5" 0 b"\x03\xd9\xa2\x9a\x65\xfb\x4b\xb5"] sealed::header;
    AesCrypt "aescrypt" Encrypted AesCrypt ["aes"] [0 b"AES\x01" 0 b"AES\x02\0" 0 b"AES\x03\0"] sealed::header;
    AxCrypt "axcrypt" Encrypted AxCrypt ["axx"] [0 b"\xc0\xb9\x07\x2e\x4f\x93\xf1\x46\xa0\x15\x79\x2c\xa1\xd9\xe8\x21"] sealed::header;
    AnsibleVault "ansible-vault" Encrypted AnsibleVault [] [0 b"$ANSIBLE_VAULT;"] sealed::header;
    Bitlocker "bitlocker" Encrypted Bitlocker [] [3 b"-FVE-FS-"] sealed::header;
    Sealed "shieldd" Encrypted Sealed ["shield"] [0 b"SHIELD\0\x01"] sealed::shieldd;
    // spellings of any bytes
    Base64 "base64" Encoding Base64 ["b64" "base64"] [] never;
    Hex "hex" Encoding Hex ["hex"] [] never;
    // later ones: numbers stay what they were
    Base85 "base85" Encoding Base85 ["b85" "a85"] [] never;
    PgpKey "pgp-key" Data Gpg ["kbx"] [] never;
    Bitcode "llvm-bitcode" Data Bitcode ["bc"] [0 b"BC\xc0\xde"] plain;
    Xcursor "xcursor" Data Xcursor ["xcur"] [0 b"Xcur"] plain;
    Terminfo "terminfo" Data Terminfo [] [0 b"\x1a\x01" 0 b"\x1e\x02"] data::terminfo;
    Jmod "jmod" Archive Jmod ["jmod"] [0 b"JM\x01\0PK\x03\x04"] archive::jmod;
}

/// Names of the formats, in the order of [`crate::facts::Facts::format`].
pub fn names() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|f| f.name)
}

/// The row of a number; the first row for numbers beyond the table.
pub fn row(format: u16) -> &'static Format {
    FORMATS.get(usize::from(format)).unwrap_or(&FORMATS[0])
}

/// Whether an index names a kind of content (not unknown, not a mere encoding).
pub fn is_kind(format: u16) -> bool {
    !matches!(row(format).class, Class::Unknown | Class::Encoding)
}

/// Whether it may hold several files.
pub fn is_archive(format: u16) -> bool {
    // a compressed stream may hold a tar
    matches!(row(format).class, Class::Archive | Class::Stream)
}

/// Whether people expect text, pictures or tables behind it, never a program.
pub fn is_document(format: u16) -> bool {
    matches!(
        row(format).class,
        Class::Document | Class::Image | Class::Media | Class::Clinical | Class::Text
    )
}

/// Whether its content is compressed by nature: high entropy is no news there.
pub fn is_dense(format: u16) -> bool {
    matches!(
        row(format).class,
        Class::Archive | Class::Stream | Class::Document | Class::Image | Class::Media
    )
}

/// Whether two formats are readings of the same family.
pub fn same_family(a: u16, b: u16) -> bool {
    a == b || row(a).family == row(b).family
}

/// The format that an extension (lower case) names.
pub fn by_extension(extension: &[u8]) -> Id {
    if extension.is_empty() || extension.len() > 12 {
        return Id::Unknown;
    }
    EXTENSIONS
        .binary_search_by(|(ext, _)| ext.as_bytes().cmp(extension))
        .map_or(Id::Unknown, |i| EXTENSIONS[i].1)
}

/// All extensions, sorted.
static EXTENSIONS: std::sync::LazyLock<Vec<(&'static str, Id)>> = std::sync::LazyLock::new(|| {
    let mut all: Vec<_> = FORMATS
        .iter()
        .flat_map(|f| f.extensions.iter().map(|e| (*e, f.id)))
        .collect();
    all.sort_unstable_by_key(|x| x.0);
    all
});

/// Formats whose magic starts at offset 0, by first byte; the others under their own list.
static BY_FIRST: std::sync::LazyLock<Vec<Vec<(&'static Format, Magic)>>> =
    std::sync::LazyLock::new(|| {
        let mut lists: Vec<Vec<(&'static Format, Magic)>> = vec![Vec::new(); 257];
        for format in FORMATS {
            for magic in format.magic {
                let list = if magic.0 == 0 {
                    usize::from(magic.1[0])
                } else {
                    256
                };
                lists[list].push((format, *magic));
            }
        }
        // longer magic first: the more precise format is asked first
        for list in &mut lists {
            list.sort_by_key(|(_, magic)| std::cmp::Reverse(magic.1.len()));
        }
        lists
    });

/// The format by content with what its check found; none where no magic stands or every check declines.
pub fn by_content(context: &Context<'_>) -> Option<(Id, Check)> {
    let head = context.head();
    let first = *head.first()?;
    let lists = &*BY_FIRST;
    for (format, (offset, magic)) in lists[usize::from(first)].iter().chain(&lists[256]) {
        let Some(found) = head.get(*offset..*offset + magic.len()) else {
            continue;
        };
        if found == *magic {
            if let Some(check) = (format.check)(context) {
                return Some((check.refined.unwrap_or(format.id), check));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_numbers_and_extensions_name_one_format() {
        for (i, format) in FORMATS.iter().enumerate() {
            assert_eq!(format.id as usize, i);
            for ext in format.extensions {
                assert_eq!(by_extension(ext.as_bytes()), format.id, "{ext}");
            }
        }
        assert_eq!(by_extension(b"nonsense"), Id::Unknown);
    }
}
