"""The report's templates, compiled once for all programs that are forked: a quarter of what each computed."""

from gameday.report import markdown, page

page.template()
markdown.template()
