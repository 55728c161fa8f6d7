//! The user that the processes of an app run as.

use crate::spec::Options;
use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setgroups, setuid};
use std::ffi::CString;

/// A user, with what the system knows of it.
pub struct As {
    /// Its number.
    pub uid: Uid,
    /// The number of its group, or of another one.
    pub gid: Gid,
    /// `None` for a number without a name.
    known: Option<User>,
}

impl As {
    /// Finds the user that an app asks for; `None` if it asks for none.
    ///
    /// # Errors
    /// Fails if there is no such user or group, or this process may not become it.
    pub fn of(options: &Options) -> Result<Option<Self>> {
        if options.uid.is_none() && options.gid.is_none() {
            return Ok(None);
        }
        let own = Uid::effective();
        let known = match &options.uid {
            Some(text) => match text.parse::<u32>() {
                Ok(number) => User::from_uid(Uid::from_raw(number))?,
                Err(_) => Some(User::from_name(text)?.with_context(|| format!("there is no user {text}"))?),
            },
            None => User::from_uid(own)?,
        };
        let number = options.uid.as_ref().and_then(|text| text.parse::<u32>().ok()).map(Uid::from_raw);
        let uid = number.or(known.as_ref().map(|user| user.uid)).unwrap_or(own);
        let gid = match options.gid.as_ref().map(|text| (text, text.parse::<u32>())) {
            Some((_, Ok(number))) => Gid::from_raw(number),
            Some((text, Err(_))) => Group::from_name(text)?.with_context(|| format!("there is no group {text}"))?.gid,
            None => known.as_ref().map(|user| user.gid).context("a user without a name needs a group too: add --gid")?,
        };
        if !own.is_root() && (uid != own || gid != Gid::effective()) {
            bail!("only root can start processes as another user");
        }
        Ok(Some(As { uid, gid, known }))
    }

    /// Lets this process become the user, for good.
    ///
    /// # Errors
    /// Fails if it may not.
    pub fn become_it(&self) -> Result<()> {
        if Uid::effective().is_root() {
            match &self.known {
                Some(user) => {
                    initgroups(&CString::new(user.name.as_str())?, self.gid).context("cannot take the groups of the user")?
                }
                None => setgroups(&[self.gid]).context("cannot take the group")?,
            }
        }
        setgid(self.gid).with_context(|| format!("cannot take the group {}", self.gid))?;
        setuid(self.uid).with_context(|| format!("cannot become the user {}", self.uid))
    }

    /// The variables that name the user and its folder.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let Some(user) = &self.known else { return Vec::new() };
        let home = user.dir.to_string_lossy().into_owned();
        vec![("USER", user.name.clone()), ("LOGNAME", user.name.clone()), ("HOME", home)]
    }
}
