//! The tests of every catalogue hold, on the jobs as a connection of its kind has them.

use crate::config;
use crate::config::oob::CrmKind;
use crate::config::oob::listing::catalogue;
use crate::config::problem::Problems;

use super::*;

#[tokio::test]
async fn the_tests_of_every_catalogue_hold() {
    for kind in [CrmKind::Salesforce, CrmKind::Dynamics] {
        let text = format!(
            "[connection.first]\nkind = \"{}\"\norg = \"https://contoso.example\"\noob = {{ catalog = 1, jobs = \"all\", \
             multi_currency = true, company_teams = true, renewal_center = true }}\n",
            kind.name()
        );
        let config = config::built_for_jobs(&text);
        assert_eq!(config.jobs.len(), catalogue(kind).len());
        let compiled = config.jobs.iter().map(|job| {
            let mapping = Mapping::compile(job, &config.objects);
            Arc::new(mapping.unwrap_or_else(|problems| panic!("{}", Problems::new(problems))))
        });
        let mappings: Vec<Arc<Mapping>> = compiled.collect();
        let trials = run(&config, &mappings).await.unwrap();
        let failures = Problems::new(trials.failures);
        assert!(failures.as_slice().is_empty(), "{failures}");
        assert!(trials.run >= config.jobs.len());
    }
}
