//! How a checkpoint is found and read: nothing of it is believed before its CRCs were checked.

use super::*;

/// The checkpoints in the directory by their names, the newest first. Whether they are whole, only reading tells.
///
/// # Errors
/// If the directory cannot be read.
pub fn list_checkpoints<D: Disk>(disk: &D) -> io::Result<Vec<(LogIndex, String)>> {
    let mut found: Vec<_> = disk
        .list()?
        .into_iter()
        .filter_map(|name| match parse_name(&name) {
            NameKind::Checkpoint(index) => Some((index, name)),
            _ => None,
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// A checkpoint that is being read.
pub struct CheckpointReader<F> {
    file: F,
    path: String,
    head: CheckpointHead,
    blocks: Blocks,
    body_bytes_left: u64,
    is_whole: bool,
}

impl<F: MappedFile> CheckpointReader<F> {
    /// Opens a checkpoint and reads all but its body. `identity` is whose it must be.
    ///
    /// # Errors
    /// If it is damaged as far as that, is another node's or another release's, or cannot be read.
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        name: &str,
        identity: Option<&DirectoryIdentity>,
    ) -> Result<Self, StorageError> {
        let (mut reader, registrations, tables_bytes) = Self::open_header(disk, name, identity)?;
        reader.read_tables(registrations, tables_bytes)?;
        Ok(reader)
    }

    /// Opens a checkpoint and reads its header; tells how many registrations its tables have, and their bytes.
    fn open_header<D: Disk<File = F>>(
        disk: &D,
        name: &str,
        identity: Option<&DirectoryIdentity>,
    ) -> Result<(Self, u32, u64), StorageError> {
        let path = disk.describe(name);
        let damage = |what: String| StorageError::Damage { file: path.clone(), offset: 0, what };
        let NameKind::Checkpoint(index) = parse_name(name) else {
            return Err(damage("no checkpoint has such a name".to_owned()));
        };
        let file = disk.open(name).doing(|| format!("open {path}"))?;
        let len_bytes = file.len_bytes();
        if len_bytes < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(damage(format!("a checkpoint of {len_bytes} bytes")));
        }
        let mut header = [0; HEADER_BYTES];
        file.copy_out(0, &mut header).doing(|| format!("read {path}"))?;
        let (head, [registrations, segments]) = CheckpointHead::decode(&header, &path)?;
        if let Some(expected) = identity.filter(|expected| **expected != head.identity) {
            let (found, expected) = (head.identity, expected.clone());
            return Err(StorageError::WrongDirectory { file: path, found, expected });
        }
        if head.entry.index != index {
            return Err(damage(format!("entry {} by its header, {index} by its name", head.entry.index)));
        }
        if head.begins_anew != names_anew(name) {
            return Err(damage("header and name differ in where the log begins".to_owned()));
        }
        let tables_bytes = tables_bytes(u64::from(registrations), u64::from(segments));
        let expected =
            [Some(LittleEndian::read_u64(&header[24..])), file_bytes(tables_bytes, head.body_bytes)];
        if expected != [Some(len_bytes); 2] {
            return Err(damage(format!("a file of {len_bytes} bytes, by its header {expected:?}")));
        }
        let (blocks, body_bytes_left) = (Blocks::behind(&header, head.salt), head.body_bytes);
        let reader = Self { file, path, head, blocks, body_bytes_left, is_whole: false };
        Ok((reader, registrations, tables_bytes))
    }

    /// Reads a whole checkpoint, and goes on behind what is damaged. Gives what it is of, as far as that can be told, and
    /// all that is wrong, in the order of the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn verify<D: Disk<File = F>>(
        disk: &D,
        name: &str,
    ) -> Result<(Option<CheckpointHead>, Vec<StorageError>), StorageError> {
        let opened = Self::open_header(disk, name, None);
        let (mut reader, registrations, tables_bytes) = match opened {
            Err(error @ (StorageError::Damage { .. } | StorageError::UnknownFormat { .. })) => {
                return Ok((None, vec![error]));
            }
            opened => opened?,
        };
        let mut problems = Vec::new();
        let tables = reader.verify_blocks(TABLES, tables_bytes, &mut problems)?;
        if problems.is_empty()
            && let Err(what) = reader.head.take_tables(registrations, &tables)
        {
            problems.push(reader.damage(HEADER_BYTES as u64, what));
        }
        let body_bytes = std::mem::take(&mut reader.body_bytes_left);
        reader.verify_blocks(BODY, body_bytes, &mut problems)?;
        match reader.read_trailer(problems.is_empty()) {
            Err(error @ StorageError::Damage { .. }) => problems.push(error),
            read => read?,
        }
        Ok((Some(reader.head), problems))
    }

    /// Reads all blocks of a section; gives what those of the tables hold, unless one is damaged.
    fn verify_blocks(
        &mut self,
        section: u32,
        mut bytes_left: u64,
        problems: &mut Vec<StorageError>,
    ) -> Result<Vec<u8>, StorageError> {
        let mut bytes = Vec::new();
        while bytes_left > 0 {
            match self.read_block(section, bytes_left) {
                Ok(payload) if section == TABLES => bytes.extend_from_slice(&payload),
                Ok(_) => {}
                Err(error @ StorageError::Damage { .. }) => problems.push(error),
                Err(error) => return Err(error),
            }
            bytes_left -= bytes_left.min(BLOCK_PAYLOAD_BYTES_MAX as u64);
        }
        Ok(bytes)
    }

    /// What the checkpoint is of.
    #[must_use]
    pub fn head(&self) -> &CheckpointHead {
        &self.head
    }

    /// The next piece of the body; nothing behind the last, once it is known that the whole file is as it was written.
    ///
    /// # Errors
    /// If the file is damaged there, or cannot be read.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, StorageError> {
        if self.body_bytes_left > 0 {
            let payload = self.read_block(BODY, self.body_bytes_left)?;
            self.body_bytes_left -= payload.len() as u64;
            return Ok(Some(payload));
        }
        if !self.is_whole {
            self.read_trailer(true)?;
            self.is_whole = true;
        }
        Ok(None)
    }

    fn read_tables(&mut self, registrations: u32, tables_bytes: u64) -> Result<(), StorageError> {
        let mut tables = Vec::new();
        while (tables.len() as u64) < tables_bytes {
            tables.extend_from_slice(&self.read_block(TABLES, tables_bytes - tables.len() as u64)?);
        }
        let taken = self.head.take_tables(registrations, &tables);
        taken.map_err(|what| self.damage(HEADER_BYTES as u64, what))
    }

    /// Reads the next block, of a section of which so many bytes are left.
    fn read_block(&mut self, section: u32, bytes_left: u64) -> Result<Bytes, StorageError> {
        let offset = self.blocks.offset;
        let payload_bytes = bytes_left.min(BLOCK_PAYLOAD_BYTES_MAX as u64) as usize;
        let mut found = [0; BLOCK_HEAD_BYTES];
        self.file.copy_out(offset, &mut found).doing(|| format!("read {}", self.path))?;
        let payload = self.file.slice(offset + BLOCK_HEAD_BYTES as u64, payload_bytes);
        let payload = payload.doing(|| format!("read {}", self.path))?;
        // Where each block is and how long is known: a whole one is, head and all, as it must be.
        let expected = self.blocks.next(section, &payload);
        if found == expected {
            return Ok(payload);
        }
        let is_the_one =
            found[..CRC_AT] == expected[..CRC_AT] && found[CRC_AT + 4..] == expected[CRC_AT + 4..];
        let what = match () {
            () if found[..4] != *BLOCK_TAG => "no block",
            () if is_the_one => "block CRC mismatch",
            () => "not the block that belongs here",
        };
        Err(self.damage(offset, what))
    }

    /// Reads the trailer; if a block was damaged, what it says of the blocks is not looked at.
    fn read_trailer(&self, blocks_are_whole: bool) -> Result<(), StorageError> {
        let offset = self.blocks.offset;
        let mut found = [0; TRAILER_BYTES];
        self.file.copy_out(offset, &mut found).doing(|| format!("read {}", self.path))?;
        let is_one = found[..8] == *TRAILER_MAGIC;
        let is_whole =
            LittleEndian::read_u32(&found[CRC_AT..]) == crc_without_field(Some(self.head.salt), &found);
        if found == self.blocks.trailer() || (is_one && is_whole && !blocks_are_whole) {
            return Ok(());
        }
        Err(self.damage(offset, if is_one { "not the trailer that belongs here" } else { "no trailer" }))
    }

    fn damage(&self, offset: u64, what: &str) -> StorageError {
        StorageError::Damage { file: self.path.clone(), offset, what: what.to_owned() }
    }
}
