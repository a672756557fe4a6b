use crate::{Error, Image, Progress, PullOptions, PushOptions, Result, Store};
impl Store {
    #[allow(missing_docs)]
    pub fn pull(&self, _: &str, _: &PullOptions, _: &mut dyn Progress) -> Result<Image> {
        Err(Error::unsupported("pull", "a later version"))
    }
    #[allow(missing_docs)]
    pub fn push(&self, _: &Image, _: &str, _: &PushOptions, _: &mut dyn Progress) -> Result<()> {
        Err(Error::unsupported("push", "a later version"))
    }
}
