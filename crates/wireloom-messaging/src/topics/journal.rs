//! Below the [`MemoryBroker`], a file: its topics go on when the process is started again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::broker::BrokerError;
use super::log::KEY_LIFETIME;
use super::memory::{Journal, MemoryBroker, RestoredTopic};
use super::message::TopicMessage;
use super::name::TopicName;
use super::position::Epoch;
use crate::codec::Encoding;
use crate::data::Data;

impl MemoryBroker {
    /// A broker whose kept messages and keys are also written to a file, and which goes on where the file ends: same epochs, same
    /// offsets, so that clients recover over a restart, and what is repeated is not published twice.
    ///
    /// An acknowledged publication was handed to the operating system: it survives the end of the process in any way, not a loss of
    /// power. A line that was cut off in the middle of being written, and so never acknowledged, is removed. Where the disk is full,
    /// publications are refused.
    ///
    /// The file is made with mode 0600 if it is not there: one line of JSON for each message. It belongs to one process at a time.
    /// When it would grow beyond `max_bytes` it is rewritten with the newer half of its lines, which takes as long as
    /// writing that much; a topic of which then nothing is left begins a new epoch with the next start. Reading it at the
    /// start holds it in memory once.
    ///
    /// Of what it holds, histories are kept as the topics' options say, from when a server has this broker; where that is more than
    /// [`max_bytes`](Self::max_bytes), those of the topics that were published to last. The others go on without their past.
    ///
    /// # Errors
    /// The file cannot be opened, read or written, or holds something else.
    pub fn with_journal(path: impl Into<PathBuf>, max_bytes: u64) -> io::Result<Self> {
        let path = path.into();
        let mut file = open(&path)?;
        let content = fs::read(&path)?;
        // What does not end with a line was cut off.
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < content.len() {
            tracing::warn!(bytes = content.len() - whole, path = %path.display(), "the journal ended within a line");
            file.set_len(whole as u64)?;
            file = open(&path)?;
        }
        let topics = read(&content[..whole], unix_ms())?;
        let writer = Writer {
            path,
            file,
            bytes: whole as u64,
            max_bytes,
            is_broken: false,
        };
        Ok(Self::restored(FileJournal(Mutex::new(writer)), topics))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A line.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    epoch: Cow<'a, str>,
    offset: u64,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    key: Cow<'a, str>,
    /// Milliseconds since 1970.
    at: u64,
    #[serde(borrow, flatten)]
    payload: Written<'a>,
}

/// Text as it is, so that a person can read it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Written<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Binary(String),
    Utf8(String),
    Utf16(String),
}

impl<'a> Written<'a> {
    fn of(data: &'a Data) -> Self {
        match (data.encoding, std::str::from_utf8(&data.bytes)) {
            (Encoding::Utf8, Ok(text)) => Self::Text(text.into()),
            (Encoding::Utf8, Err(_)) => Self::Utf8(hex(&data.bytes)),
            (Encoding::Utf16, _) => Self::Utf16(hex(&data.bytes)),
            (Encoding::Binary, _) => Self::Binary(hex(&data.bytes)),
        }
    }

    fn data(&self) -> Option<Data> {
        let (encoding, digits) = match self {
            Self::Text(text) => {
                let bytes = text.as_bytes().to_vec().into();
                return Some(Data {
                    encoding: Encoding::Utf8,
                    bytes,
                });
            }
            Self::Binary(digits) => (Encoding::Binary, digits),
            Self::Utf8(digits) => (Encoding::Utf8, digits),
            Self::Utf16(digits) => (Encoding::Utf16, digits),
        };
        let bytes = unhex(digits)?.into();
        Some(Data { encoding, bytes })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a topic's lines say.
struct Found {
    epoch: Epoch,
    offset: u64,
    messages: Vec<(u64, Arc<TopicMessage>)>,
    keys: Vec<(u64, String, u64)>,
}

fn read(content: &[u8], now: u64) -> io::Result<Vec<RestoredTopic>> {
    let mut topics: HashMap<TopicName, Found> = HashMap::new();
    let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    for (nth, line) in lines.enumerate() {
        let wrong = |why: &str| {
            let why = format!("line {} of the journal: {why}", nth + 1);
            io::Error::new(ErrorKind::InvalidData, why)
        };
        let record: Record<'_> = serde_json::from_slice(line).map_err(|error| wrong(&error.to_string()))?;
        let name = TopicName::new(&record.topic).map_err(|error| wrong(&error.to_string()))?;
        let epoch = Epoch::new(&record.epoch).map_err(|error| wrong(&error.to_string()))?;
        let data = record.payload.data().ok_or_else(|| wrong("no hexadecimal digits"))?;
        if record.offset == 0 {
            return Err(wrong("offsets begin at 1"));
        }
        let found = topics.entry(name.clone()).or_insert_with(|| Found {
            epoch: epoch.clone(),
            offset: 0,
            messages: Vec::new(),
            keys: Vec::new(),
        });
        if found.epoch != epoch || found.offset + 1 != record.offset {
            // What was before is of another epoch, or was not kept.
            found.messages.clear();
            found.keys.clear();
            found.epoch = epoch;
        }
        // Clocks go back; ages do not.
        let at = record.at.max(found.messages.last().map_or(0, |(at, _)| *at)).min(now);
        found.offset = record.offset;
        found.messages.push((at, TopicMessage::kept(name, record.offset, data)));
        if !record.key.is_empty() {
            found.keys.push((at, record.key.into_owned(), record.offset));
        }
    }
    let age = |at: u64| Duration::from_millis(now - at);
    let restored = topics.into_iter().map(|(name, found)| RestoredTopic {
        name,
        epoch: found.epoch,
        offset: found.offset,
        messages: found
            .messages
            .into_iter()
            .map(|(at, message)| (age(at), message))
            .collect(),
        keys: found
            .keys
            .into_iter()
            .map(|(at, key, offset)| (age(at), key, offset))
            .filter(|(age, ..)| *age < KEY_LIFETIME)
            .collect(),
    });
    Ok(restored.collect())
}

struct FileJournal(Mutex<Writer>);

struct Writer {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
    /// It ends within a line, which could not be removed: nothing may follow.
    is_broken: bool,
}

impl Journal for FileJournal {
    fn append(&self, topic: &TopicName, epoch: &Epoch, offset: u64, key: &str, data: &Data) -> Result<(), BrokerError> {
        let record = Record {
            topic: topic.as_str().into(),
            epoch: epoch.as_str().into(),
            offset,
            key: key.into(),
            at: unix_ms(),
            payload: Written::of(data),
        };
        let unavailable = |error: io::Error| BrokerError::Unavailable(format!("the journal: {error}"));
        let mut line = serde_json::to_vec(&record).map_err(|error| unavailable(error.into()))?;
        line.push(b'\n');
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer.append(&line).map_err(unavailable)
    }
}

impl Writer {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.bytes + length > self.max_bytes && self.bytes > 0 {
            self.rewrite()?;
        }
        if self.is_broken {
            return Err(io::Error::other("it is damaged"));
        }
        if let Err(error) = self.file.write_all(line) {
            // Part of the line may be there.
            self.is_broken = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.bytes += length;
        Ok(())
    }

    /// Keeps the newer half, in a new file that takes the place of the old one when it is whole.
    fn rewrite(&mut self) -> io::Result<()> {
        let content = fs::read(&self.path)?;
        let whole = usize::try_from(self.bytes).unwrap_or(usize::MAX).min(content.len());
        let half = usize::try_from(self.max_bytes / 2).unwrap_or(usize::MAX);
        let from = whole.saturating_sub(half);
        // From a line's start.
        let newline = content[from..whole].iter().position(|byte| *byte == b'\n');
        let kept = match (from, newline) {
            (0, _) => &content[..whole],
            (_, Some(at)) => &content[from + at + 1..whole],
            (_, None) => &[],
        };
        // Behind the whole name: the same with another extension is another journal's.
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = open(&beside)?;
        file.write_all(kept)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        self.file = file;
        self.bytes = kept.len() as u64;
        self.is_broken = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::broker::{Broker as _, History, HistoryQuery, Publication, Recent};
    use super::super::options::{Topic, TopicOptions};
    use super::super::position::Position;
    use super::*;

    const MAX: u64 = 1 << 20;

    fn topic(name: &str) -> Topic {
        let options = TopicOptions::new().history(1000, Duration::from_secs(3600));
        Topic::new(TopicName::new(name).expect("a name"), options)
    }

    async fn publish(broker: &MemoryBroker, name: &str, key: &str, data: Data) -> Position {
        let publication = Publication::new(data).key(key);
        broker.publish(&topic(name), publication).await.expect("accepted")
    }

    async fn history(broker: &MemoryBroker, name: &str) -> History {
        let all = HistoryQuery::new().recent(Recent::default());
        broker.history(&topic(name), &all).await.expect("history")
    }

    fn datas(history: &History) -> Vec<Data> {
        history.messages.iter().map(|message| message.data().clone()).collect()
    }

    #[tokio::test]
    async fn keys_live_as_long_as_was_said() {
        for (lifetime, offset) in [(Duration::from_secs(3600), 1), (Duration::ZERO, 2)] {
            let broker = MemoryBroker::new().key_lifetime(lifetime);
            publish(&broker, "a", "key", Data::EMPTY).await;
            // Clocks of some systems tick slowly.
            let until = std::time::Instant::now();
            while until.elapsed().is_zero() {
                std::hint::spin_loop();
            }
            assert_eq!(publish(&broker, "a", "key", Data::EMPTY).await.offset, offset);
        }
    }

    #[tokio::test]
    async fn goes_on_where_it_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let said = [
            Data::from("жü\n\"quoted\""),
            Data::binary(vec![0, 10, 255]),
            Data::utf16("a😀"),
            Data {
                encoding: Encoding::Utf8,
                bytes: vec![0xff, 0xfe].into(),
            },
            Data::EMPTY,
        ];
        let broker = MemoryBroker::with_journal(&path, MAX).expect("opened");
        let mut last = None;
        for (nth, data) in said.iter().enumerate() {
            last = Some(publish(&broker, "a", &format!("key{nth}"), data.clone()).await);
            publish(&broker, "b", "", data.clone()).await;
        }
        let last = last.expect("something was said");
        drop(broker);

        let broker = MemoryBroker::with_journal(&path, MAX).expect("opened again");
        for name in ["a", "b"] {
            assert_eq!(datas(&history(&broker, name).await), said);
        }
        // The client that did not hear of its acknowledgement.
        assert_eq!(publish(&broker, "a", "key4", Data::EMPTY).await, last);
        let next = publish(&broker, "a", "key5", Data::EMPTY).await;
        assert_eq!((&next.epoch, next.offset), (&last.epoch, last.offset + 1));
        let missed = broker.history(&topic("a"), &HistoryQuery::new().since(last)).await;
        let missed = missed.expect("history");
        assert!(missed.recovered);
        assert_eq!(missed.messages.len(), 1);
    }

    #[tokio::test]
    async fn rewriting_one_touches_no_other_of_a_like_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name| folder.path().join(name);
        fs::write(path("a.new"), "another's").expect("written");
        for name in ["a.1", "b.new"] {
            let broker = MemoryBroker::with_journal(path(name), 2000).expect("opened");
            for _ in 0..100 {
                publish(&broker, "t", "", "something".into()).await;
            }
            let length = fs::metadata(path(name)).expect("there").len();
            assert!((1..=2000).contains(&length), "{length}");
        }
        assert_eq!(fs::read(path("a.new")).expect("still there"), b"another's");
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let broker = MemoryBroker::with_journal(&path, MAX).expect("opened");
        for text in ["one", "two"] {
            publish(&broker, "t", text, text.into()).await;
        }
        drop(broker);
        let whole = fs::read(&path).expect("the file");
        let first = whole.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        for cut in first..whole.len() {
            fs::write(&path, &whole[..cut]).expect("written");
            let broker = MemoryBroker::with_journal(&path, MAX).expect("opened");
            assert_eq!(datas(&history(&broker, "t").await), ["one".into()], "{cut}");
            // It was never acknowledged, and is repeated.
            assert_eq!(publish(&broker, "t", "two", "two".into()).await.offset, 2);
            let broker = MemoryBroker::with_journal(&path, MAX).expect("opened");
            assert_eq!(datas(&history(&broker, "t").await), ["one".into(), "two".into()]);
        }
    }

    #[tokio::test]
    async fn something_else_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let bad = [
            "nonsense\n",
            "{}\n",
            r#"{"topic":"t","epoch":"e","offset":0,"at":1,"text":"x"}"#,
            r#"{"topic":"","epoch":"e","offset":1,"at":1,"text":"x"}"#,
            r#"{"topic":"t","epoch":"","offset":1,"at":1,"text":"x"}"#,
            r#"{"topic":"t","epoch":"e","offset":1,"at":1,"binary":"0"}"#,
            r#"{"topic":"t","epoch":"e","offset":1,"at":1,"binary":"+f"}"#,
        ];
        for line in bad {
            fs::write(&path, format!("{}\n", line.trim_end())).expect("written");
            let refused = MemoryBroker::with_journal(&path, MAX).err().map(|error| error.kind());
            assert_eq!(refused, Some(ErrorKind::InvalidData), "{line}");
        }
        assert!(MemoryBroker::with_journal(folder.path(), MAX).is_err());
    }

    #[tokio::test]
    async fn stays_within_its_size_and_keeps_the_newest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let max = 10_000;
        let broker = MemoryBroker::with_journal(&path, max).expect("opened");
        let mut last = publish(&broker, "t", "", "0".into()).await;
        for nth in 1..500 {
            last = publish(&broker, "t", "", nth.to_string().into()).await;
            assert!(fs::metadata(&path).expect("the file").len() <= max);
        }
        drop(broker);
        let broker = MemoryBroker::with_journal(&path, max).expect("opened again");
        let kept = history(&broker, "t").await;
        assert_eq!(kept.position, last);
        assert!(kept.messages.len() > 20, "{}", kept.messages.len());
        let first = 500 - kept.messages.len();
        let expected: Vec<Data> = (first..500).map(|nth| nth.to_string().into()).collect();
        assert_eq!(datas(&kept), expected);
        // A line larger than all: written all the same.
        publish(&broker, "t", "", "x".repeat(20_000).into()).await;
        drop(broker);
        let broker = MemoryBroker::with_journal(&path, max).expect("opened again");
        assert_eq!(history(&broker, "t").await.position.offset, 501);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_not_published() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        fs::write(&path, "").expect("written");
        let writer = Writer {
            file: File::open(&path).expect("opened to be read only"),
            path,
            bytes: 0,
            max_bytes: MAX,
            is_broken: false,
        };
        let broker = MemoryBroker::restored(FileJournal(Mutex::new(writer)), Vec::new());
        for _ in 0..2 {
            let refused = broker.publish(&topic("t"), Publication::new("x".into()).key("k")).await;
            assert!(matches!(refused, Err(BrokerError::Unavailable(_))), "{refused:?}");
        }
        assert_eq!(history(&broker, "t").await.position.offset, 0);
    }
}
