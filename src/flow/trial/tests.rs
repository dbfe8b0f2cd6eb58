//! The tests of every catalogue hold, on the jobs as a connection of its kind has them.

use crate::config;
use crate::config::oob::CrmKind;
use crate::config::oob::listing::catalogue;
use crate::config::problem::Problems;
use crate::mapping::compile::owners;

use super::*;

/// The jobs of a config that must compile.
pub(super) fn compiled(config: &Config) -> Vec<Arc<Mapping>> {
    let compiled = config.jobs.iter().map(|job| {
        let mapping = Mapping::compile(job, &config.objects);
        mapping.unwrap_or_else(|problems| panic!("{}", Problems::new(problems)))
    });
    let mut compiled: Vec<Mapping> = compiled.collect();
    owners::settle(&mut compiled, &config.order);
    compiled.into_iter().map(Arc::new).collect()
}

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
        let mappings = compiled(&config);
        let trials = run(&config, &mappings).await.unwrap();
        let failures = Problems::new(trials.failures);
        assert!(failures.as_slice().is_empty(), "{failures}");
        assert!(trials.run >= config.jobs.len());
    }
}

/// What a connector is asked for: paths as they are written, under which it answers.
#[test]
fn the_fields_that_dynamics_is_asked_for() {
    let text = "[connection.first]\nkind = \"dynamics\"\norg = \"https://contoso.crm.dynamics.com\"\n\
                oob = { catalog = 1, jobs = \"all\" }\n";
    let config = config::built_for_jobs(text);
    let company = config.objects["Company"].fields.iter();
    let column = company.filter(|field| field.column == "external_account_id_contoso");
    let labels: Vec<&str> = column.map(|field| field.label.as_str()).collect();
    assert_eq!(labels, ["External Account ID_contoso"]);
    let asked = |id: &str| {
        let job = config
            .jobs
            .iter()
            .find(|job| job.id.as_str() == id)
            .unwrap();
        let mapping = Mapping::compile(job, &config.objects).unwrap();
        let mut fields: Vec<String> = mapping
            .plan()
            .fields
            .iter()
            .map(ToString::to_string)
            .collect();
        fields.sort_unstable();
        fields.join(" ")
    };
    assert_eq!(
        asked("user_sync"),
        "domainname firstname isdisabled lastname parentsystemuserid personalemailaddress systemuserid"
    );
    assert_eq!(
        asked("company_sync"),
        "accountid industrycode@label name numberofemployees"
    );
    assert_eq!(
        asked("company_person_sync"),
        "contactid emailaddress1 firstname lastname parentcustomerid:account"
    );
}
