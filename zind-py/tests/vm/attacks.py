"""The attacks that are carried out in the virtual machines, too: of every row of docs/attacks.md one of its tests at least.

The machines are emulated, and ten times as slow: of a test with many parameters there is one set, or two. A name that is gone is an
error of pytest's; ``zind-core/tests/docs.rs`` compares with the table.
"""

from __future__ import annotations

#: Module -> its tests, as pytest has them.
KINDS = {
    "attacks/test_kernel_surface": """
        test_only_harmless_sockets_are_opened[plain]
        test_without_the_filter_there_are_others
        test_nothing_of_the_kernel_behind_namespaces_is_reached[{}]
        test_without_the_filter_all_of_that_is_reached
        test_no_release_agent_is_written
        test_with_all_rights_a_release_agent_could_be_written
        test_a_set_uid_program_of_somebody_outside[4242]
        test_calls_of_i386_and_x32_end_the_program
        test_typing_into_the_callers_terminal[default]
        test_typing_into_the_callers_terminal[neither]
        test_what_tells_of_others_is_empty
        test_the_session_keyring_of_the_caller_is_reached_only_if_it_is_given
        test_abstract_sockets_of_the_host_take_the_hosts_network
    """,
    "attacks/test_memory_attacks": """
        test_shared_memory_is_the_containers[/dev/shm]
        test_shared_memory_is_the_containers[shmget]
    """,
    "attacks/test_identities": """
        test_no_number_becomes_root[user-4294967294]
        test_no_number_becomes_root[user and group-4294967296]
        test_no_number_of_a_program_in_a_container_becomes_root[4294967296]
        test_no_number_of_an_image_becomes_root[4294967296]
        test_groups_are_exactly_those_of_the_image
        test_databases_that_are_traps[passwd-fifo]
        test_databases_that_are_traps[group-link]
        test_a_long_map_is_refused_as_a_whole
    """,
    "attacks/test_joining_attacks": """
        test_no_descriptor_comes_along
        test_no_directory_of_an_image_is_a_descriptor[program]
        test_a_careless_joiner_is_robbed
        test_the_program_that_joins_is_overwritten[zind]
        test_a_program_of_the_image_that_is_the_runtime
    """,
    "attacks/test_paths": """
        test_masks_do_not_come_from_the_containers_dev_null[plain-link]
        test_masks_hide_something
        test_proc_and_sys_of_a_root_are_links[layer-VICTIM-proc]
        test_proc_and_sys_of_a_root_are_links[direct-/evil-sys]
        test_writes_to_proc_land_in_the_real_one[plain-tmpfs]
        test_writes_to_proc_land_in_the_real_one[user-links]
        test_writes_to_proc_land_in_the_real_one[time-bind]
        test_masks_in_a_proc_of_somebody_else
        test_every_part_of_a_target_is_a_link[absolute-1]
        test_careless_mounts_lead_out[absolute-1]
        test_a_target_swapped_in_a_shared_volume[plain]
        test_writable_control_groups_are_written_to
        test_control_groups_are_read_only
        test_links_in_the_dev_of_a_root[layer-console]
        test_a_console_that_is_swapped_for_a_link[console]
        test_files_that_a_runtime_writes_are_links[direct-file-itself]
        test_dev_of_a_root_is_a_link
        test_a_stub_replaced_by_a_link_before_the_end
        test_a_path_is_no_list_of_options
        test_a_careless_list_of_options_is_longer_than_meant
    """,
    "attacks/test_host_side": """
        test_nothing_of_zind_is_set_id
        test_nothing_is_made_where_others_may_write
        test_others_reach_no_set_id_program_of_an_image
        test_files_of_a_container_are_replaced[log-link]
        test_files_of_a_container_are_replaced[running-fifo]
        test_a_place_of_somebody_else_is_refused[containers]
        test_settings_in_an_image_are_no_settings
        test_names_are_not_patterns
    """,
    "attacks/test_hostile_images": """
        test_nothing_is_unpacked_outside[through a link of the layer below]
        test_nothing_is_unpacked_outside[hard link from the working directory]
        test_nothing_is_unpacked_outside[the root is a link]
        test_directories_swapped_while_a_layer_is_unpacked
        test_documents_of_any_size_are_not_read[manifest]
        test_a_decoder_that_ends_early_holds_no_lock[tar+gzip]
        test_directories_of_an_image_are_inside[WorkingDir]
        test_an_image_without_layers_has_a_root_of_its_own
        test_parts_of_an_archive_are_links[index.json-absolute]
        test_a_root_in_an_archive_is_no_link
        test_sources_of_builds_are_links
    """,
    "test_exec": "test_who_waits_inside_gets_nothing_of_the_joining_process",
    "test_limits": "test_the_payload_is_in_the_group_whatever_the_namespaces",
}
#: The one attack that is not carried out there: its programs below strace(1) take minutes, and what they show is zind's own doing alone.
LEFT_OUT = "test_nothing_of_the_container_runs_on_the_host"

#: As root; every name is there.
ROOT = [f"{module}.py::{test.strip()}" for module, tests in KINDS.items() for test in tests.splitlines() if test.strip()]
#: What takes powers of root's, and would be skipped.
ROOTS = """
    test_with_all_rights_a_release_agent_could_be_written test_a_set_uid_program_of_somebody_outside test_shared_memory_is_the_containers
    test_groups_are_exactly_those_of_the_image test_a_long_map_is_refused_as_a_whole test_a_careless_joiner_is_robbed
    test_the_program_that_joins_is_overwritten test_writable_control_groups_are_written_to test_a_stub_replaced_by_a_link_before_the_end
    test_others_reach_no_set_id_program_of_an_image test_a_place_of_somebody_else_is_refused
    test_who_waits_inside_gets_nothing_of_the_joining_process test_the_payload_is_in_the_group_whatever_the_namespaces
""".split()
#: What takes more than a few seconds there; once is enough.
LONG = """
    test_a_target_swapped_in_a_shared_volume test_directories_swapped_while_a_layer_is_unpacked test_settings_in_an_image_are_no_settings
    test_directories_of_an_image_are_inside test_documents_of_any_size_are_not_read test_a_path_is_no_list_of_options
    test_a_console_that_is_swapped_for_a_link
""".split()
#: As an ordinary user.
USER = [test for test in ROOT if test.partition("::")[2].partition("[")[0] not in (*ROOTS, *LONG)]
