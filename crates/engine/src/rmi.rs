//! `rmi`: names go, and content that nothing refers to any more.

use bale_fault::{Fault, Kind, Result};
use bale_spec::{Digest, Reference};
use bale_store::{Name, Store};

use crate::image::{User, find};
use crate::{Engine, Image};

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone, as docker prints them.
    pub untagged: Vec<String>,
    /// Image ids and diff ids that are gone.
    pub deleted: Vec<Digest>,
}

impl Engine {
    /// Removes the name `typed`, or all names of the image with that id. Content goes with the last name, unless a
    /// container was made from it: that is refused, or with `force` leaves the content to the container.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when a container uses it, or when an id has several names, and not `force`.
    pub fn remove_image(&self, typed: &str, force: bool) -> Result<Removed> {
        let store = self.store()?;
        let image = find(&store, typed)?;
        let all: Vec<Name> =
            store.list_names()?.into_iter().filter(|n| n.manifest.digest == image.manifest_digest).collect();
        let by_name = is_by_name(typed, &image);
        let names = if by_name { names_of(&all, &image)? } else { all.clone() };
        if !force {
            self.refuse(&all, &names, &image, by_name.then_some(typed))?;
        }
        let mut removed = Removed::default();
        for name in &names {
            if store.remove_name(name)? {
                removed.untagged.extend(name.reference()?.map(|reference| reference.familiar()));
            }
        }
        self.collect_after(&store, &image, &mut removed)?;
        Ok(removed)
    }

    fn refuse(&self, all: &[Name], names: &[Name], image: &Image, typed: Option<&str>) -> Result<()> {
        let id = image.config_digest.short();
        if typed.is_none() && tags(names)? > 1 {
            let words = format!("cannot remove image {id}: it has several names");
            return Err(Fault::new(Kind::Conflict, words).hint("remove its names one by one, or add -f"));
        }
        if names.len() < all.len() {
            return Ok(());
        }
        let users = self.users()?;
        let Some(user) = users.iter().find(|user| user.manifest == image.manifest_digest) else {
            return Ok(());
        };
        Err(in_use(typed.unwrap_or(&id), user))
    }

    /// Frees what the names kept, at once or, when a pull is at work, at its end.
    fn collect_after(&self, store: &Store, image: &Image, removed: &mut Removed) -> Result<()> {
        let Some(collected) = store.collect(&|| self.manifests_in_use())? else { return Ok(()) };
        if collected.blobs.contains(&image.config_digest) {
            removed.deleted.push(image.config_digest);
        }
        removed.deleted.extend(collected.layers);
        Ok(())
    }
}

fn in_use(name: &str, user: &User) -> Fault {
    let state = if user.running { "running" } else { "stopped" };
    let id: String = user.id.chars().take(12).collect();
    let named = if user.name.is_empty() { String::new() } else { format!(" ({})", user.name) };
    let words = format!("cannot remove {name}: image is being used by {state} container {id}{named}");
    Fault::new(Kind::Conflict, words)
        .hint(format!("remove the container (bale rm {id}), or remove only the name with -f"))
}

fn is_by_name(typed: &str, image: &Image) -> bool {
    image.reference.is_some() && typed.parse::<Reference>().is_ok_and(|asked| named_by(&asked, image))
}

fn named_by(asked: &Reference, image: &Image) -> bool {
    let Some(found) = &image.reference else { return false };
    found.familiar_repository() == asked.familiar_repository()
}

/// Returns the asked name, and with the last tag of a repository the repository's names without a tag.
fn names_of(all: &[Name], image: &Image) -> Result<Vec<Name>> {
    let Some(asked) = &image.reference else { return Ok(Vec::new()) };
    let repository = asked.familiar_repository();
    let mut names = Vec::new();
    let mut tags_left = false;
    for name in all {
        let Some(reference) = name.reference()? else { continue };
        if reference == *asked {
            names.push(name.clone());
        } else if reference.familiar_repository() == repository && reference.tag().is_some() {
            tags_left = true;
        }
    }
    if !tags_left {
        for name in all {
            let reference = name.reference()?;
            let untagged =
                reference.as_ref().is_none_or(|r| r.tag().is_none() && r.familiar_repository() == repository);
            if untagged && reference.as_ref() != Some(asked) {
                names.push(name.clone());
            }
        }
    }
    Ok(names)
}

fn tags(names: &[Name]) -> Result<usize> {
    let mut found = 0;
    for name in names {
        found += usize::from(name.reference()?.is_some_and(|reference| reference.tag().is_some()));
    }
    Ok(found)
}
