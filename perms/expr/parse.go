package expr

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/parser"
)

// lead stands before the text that is parsed, so that it can only be an
// expression: braces are an object and no block, and brackets have to balance.
const lead = "0,"

// maxArrows is how many arrows the parser gets to see. None of them is allowed,
// but it reads the parameters of nested functions twice on each level.
const maxArrows = 3

// parse reads the text into goja's tree. What it returns is one expression, of
// any kind.
func parse(text string) (tree ast.Expression, err error) {
	refuse := func(offset int, format string, args ...any) error {
		line, column := place(text, offset)
		return &Error{Line: line, Column: column, Reason: fmt.Sprintf(format, args...)}
	}
	if i := firstNested(text); i >= 0 {
		return nil, refuse(i, "brackets nest deeper than %d: write the rule flatter", maxNesting)
	}
	switch i := firstBad(text); {
	case strings.Trim(text, " \t\r\n;") == "":
		return nil, refuse(0, "the rule is empty: write true or false, or an expression")
	case len(text) > maxText:
		return nil, refuse(maxText, "the rule is longer than %d bytes: keep lists in a record, and refer to it with _()", maxText)
	case i >= 0:
		return nil, refuse(i, "the rule is not UTF-8 text here: save the file as UTF-8")
	case strings.Count(text, "=>") > maxArrows:
		return nil, refuse(strings.Index(text, "=>"), "%s", noFunctions)
	}
	defer func() { // the parser is large and has panicked on odd input before
		if p := recover(); p != nil {
			tree, err = nil, refuse(0, "the rule cannot be read as JavaScript")
		}
	}()
	// Source maps off: the parser would read the file that a comment names. It
	// tells nobody when that fails, so no test can see the difference.
	program, parseErr := parser.ParseFile(nil, "", lead+text, 0, parser.WithDisableSourceMaps)
	if parseErr != nil {
		var list parser.ErrorList
		if !errors.As(parseErr, &list) || len(list) == 0 {
			return nil, refuse(0, "the rule cannot be read as JavaScript: %v", parseErr)
		}
		at := offsetOf(text, list[0].Position)
		return nil, refuse(at, "%s", explainParser(list[0].Message, text, at))
	}
	var statements []ast.Statement
	for _, s := range program.Body {
		if _, empty := s.(*ast.EmptyStatement); !empty {
			statements = append(statements, s)
		}
	}
	first, ok := statements[0].(*ast.ExpressionStatement)
	if !ok {
		return nil, refuse(0, "a rule is an expression, no statement")
	}
	if len(statements) > 1 {
		return nil, refuse(int(statements[1].Idx0())-1-len(lead), "a rule is one expression: join conditions with && or ||, or remove this one")
	}
	sequence, ok := first.Expression.(*ast.SequenceExpression)
	if !ok {
		return nil, refuse(0, "the rule cannot be read as JavaScript")
	}
	if len(sequence.Sequence) != 2 {
		return nil, refuse(int(sequence.Sequence[2].Idx0())-1-len(lead), "%s", noComma)
	}
	return sequence.Sequence[1], nil
}

// offsetOf is the offset in text of a position of the parser, whose columns count
// bytes.
func offsetOf(text string, p file.Position) int {
	if p.Line <= 1 {
		return p.Column - 1 - len(lead)
	}
	offset := 0
	for range p.Line - 1 {
		i := strings.IndexAny(text[offset:], "\n\r\u2028\u2029")
		if i < 0 {
			break
		}
		_, size := utf8.DecodeRuneInString(text[offset+i:])
		if strings.HasPrefix(text[offset+i:], "\r\n") {
			size = 2
		}
		offset += i + size
	}
	return offset + p.Column - 1
}

// explainParser turns the parser's message into a reason with a cure.
func explainParser(message, text string, at int) string {
	token, unexpected := strings.CutPrefix(message, "Unexpected token ")
	switch {
	case message == "Unexpected end of input", at >= len(strings.TrimRight(text, " \t\r\n;")):
		return "the rule ends too early: an operand, a quote or a closing bracket is missing"
	case token == "ILLEGAL":
		return "this is no JavaScript: check quotes and signs from here on"
	case strings.Contains(message, "exponentiation"):
		return "a sign before ** is unclear: write (-x) ** y or -(x ** y)"
	case strings.Contains(message, "coalesce"):
		return "?? beside && or || is unclear: put one of them in parentheses"
	case strings.Contains(message, "assignment"):
		return noAssignment
	case unexpected && token == "=":
		return noAssignment
	case unexpected && token == "...":
		return noSpread
	case unexpected && len(token) > 1 && token[0] >= 'a' && token[0] <= 'z':
		return fmt.Sprintf("a rule is an expression, and %s is none: write the condition alone", token)
	case unexpected:
		return fmt.Sprintf("%s does not belong here: an operand or operator is missing before it, or a bracket does not match", token)
	case strings.HasPrefix(message, "Unexpected "):
		return fmt.Sprintf("%s: an operator such as && is missing before it, or a quote does not match", lowerFirst(message))
	}
	return "the rule cannot be read as JavaScript: " + lowerFirst(message)
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// firstBad is where text stops being UTF-8, or -1.
func firstBad(text string) int {
	for i, r := range text {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				return i
			}
		}
	}
	return -1
}

// firstNested is where brackets nest too deep, or -1. Those in quotes count as
// well, which at this bound disturbs nobody.
func firstNested(text string) int {
	open := 0
	for i := range len(text) {
		switch text[i] {
		case '(', '[', '{':
			if open++; open > maxNesting {
				return i
			}
		case ')', ']', '}':
			open = max(0, open-1)
		}
	}
	return -1
}
