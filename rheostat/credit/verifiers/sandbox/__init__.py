"""Sandboxed graders: the grammar of a completion, and the rights of the process that reads it.

| module | holds |
|---|---|
| ``grammar``, ``guard``, ``inspection`` | what a right answer looks like, who asks first, and which graders run what they are given |
| ``levels``, ``process`` | the levels of the sandbox, and the trainer's side of a grading process that measures them |
| ``kernel``, ``seccomp`` | Landlock, namespaces and the filter of system calls, by the standard library alone |
| ``wire``, ``values`` | the bytes that come back: grades, and what programs return |
| ``worker`` | the grading process: it loads a grader once and forks for every job |
"""
