//! `images`: what is there.

use std::collections::{BTreeMap, HashSet};

use bale_fault::Result;
use bale_record::time::Time;
use bale_spec::{Digest, Reference};
use bale_store::Store;

use crate::{Engine, Image};

/// One line of `bale images`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The name; without a tag when the image dangles, `None` when it never had a name.
    pub reference: Option<Reference>,
    /// The digest that a registry knows it by.
    pub repo_digest: Digest,
    /// The image id.
    pub id: Digest,
    /// RFC 3339 time of creation, from the config.
    pub created: Option<String>,
    /// Bytes of file content of all layers.
    pub size: u64,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
    /// Containers made from it.
    pub containers: usize,
}

impl Engine {
    /// Lists the images, newest first, as docker does. A name that is damaged is left out and told in the second part.
    ///
    /// # Errors
    /// The failed call.
    pub fn images(&self) -> Result<(Vec<Summary>, Vec<String>)> {
        let store = self.store()?;
        let users = self.manifests_in_use().unwrap_or_default();
        let (mut list, mut damaged) = (Vec::new(), Vec::new());
        for name in store.list_names()? {
            match Image::named(&store, &name) {
                Ok(image) => list.push(summary(&store, &image, &users)?),
                Err(fault) => damaged.push(fault.chain()),
            }
        }
        hide_untagged(&mut list);
        let made = |summary: &Summary| summary.created.as_deref().and_then(Time::parse);
        list.sort_by(|a, b| made(b).cmp(&made(a)).then_with(|| a.reference.cmp(&b.reference)));
        Ok((list, damaged))
    }
}

fn summary(store: &Store, image: &Image, users: &[Digest]) -> Result<Summary> {
    let mut size = 0;
    for (blob, diff_id) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
        size += store.layer(diff_id)?.map_or(blob.size, |layer| layer.content_size);
    }
    Ok(Summary {
        reference: image.reference.clone(),
        repo_digest: image.repo_digest(),
        id: image.config_digest,
        created: image.config.created.clone(),
        size,
        labels: image.config.config.as_ref().map(|config| config.labels.clone()).unwrap_or_default(),
        containers: users.iter().filter(|user| **user == image.manifest_digest).count(),
    })
}

/// Hides the lines without a tag of images that have one in the same repository.
fn hide_untagged(list: &mut Vec<Summary>) {
    let repository = |summary: &Summary| summary.reference.as_ref().map(Reference::familiar_repository);
    let tag = |summary: &Summary| summary.reference.as_ref().and_then(|r| r.tag().map(str::to_owned));
    let tagged = list.iter().filter(|summary| tag(summary).is_some());
    let tagged: HashSet<_> = tagged.map(|summary| (repository(summary), summary.id)).collect();
    let ids: HashSet<Digest> = tagged.iter().map(|(_, id)| *id).collect();
    list.retain(|summary| match &summary.reference {
        Some(_) => tag(summary).is_some() || !tagged.contains(&(repository(summary), summary.id)),
        None => !ids.contains(&summary.id),
    });
}
