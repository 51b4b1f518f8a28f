// The lexer that the rules of writing_test.cpp stand on: what must be found, and what must not.
#include "tests/structure/source.h"

#include <catch2/catch.hpp>

using namespace structure;

namespace {

std::vector<int> commas(const std::string& body) {
  return comma_statements(tokens_of("void f() {\n" + body + "\n}\n"));
}
std::vector<int> sizes(const std::string& source) {
  std::vector<int> out;
  for (const Function& f : functions_of(tokens_of(source)))
    out.push_back(f.tokens);
  return out;
}

}  // namespace

TEST_CASE("comments, directives and the inside of literals are no tokens") {
  const auto texts = [](std::string_view source) {
    std::string out;
    for (const Token& t : tokens_of(source))
      out += t.text + " ";
    return out;
  };
  CHECK(texts("a /* b, { */ c // d\n// e\n#define F(x) \\\n  { x }\ng") == "a c g ");
  CHECK(texts(R"src("a \" b" 'c' '\'' R"re({"x"})re" u8"d" 1'000 1.5e-3f .5 x)src") ==
        "\"\" '' '' \"\" \"\" 1'000 1.5e-3f .5 x ");
  CHECK(texts("a->b::c>>=d<=>e...f") == "a -> b :: c >>= d <=> e ... f ");
  CHECK(tokens_of("\n\n/*\n*/ a").front().line == 4);
  CHECK(tokens_of("R\"(\n)\"\na").back().line == 3);
}

TEST_CASE("bodies of functions are found by what stands before them") {
  CHECK(sizes("int f() {\n  return 1;\n}") == std::vector{5});
  CHECK(sizes("int f() { return g(\"x\", 'c'); }") == std::vector{14});
  CHECK(sizes("template <class T, int N = 2>\nauto C<T>::f(T a = {}) const -> T {}") ==
        std::vector{2});
  CHECK(sizes("X::X(int a) : a_(a), b_{a, {2}}, c_<int>{3} { go(); }\nX::~X() {}") ==
        std::vector{6, 2});
  CHECK(sizes("struct A : B { int x{3}; A() : x{1} {} bool operator()(int) const {} };") ==
        std::vector{2, 2});
  CHECK(sizes("bool operator<(A a, B b) { return a < b; }\nA operator[](int) {}") ==
        std::vector{7, 2});
  CHECK(sizes("class alignas(64) A { public: void f() {} private: int x = f(); };") ==
        std::vector{2});
  CHECK(sizes("namespace a::b { namespace { void f() {} } }\nextern \"C\" { void g() {} }") ==
        std::vector{2, 2});
  CHECK(sizes("TEST_CASE(\"a name\") { CHECK(1); }") == std::vector{7});
  CHECK(functions_of(tokens_of("TEST_CASE(\"a name\") {}")).at(0).test_case);
  CHECK_FALSE(functions_of(tokens_of("void f() { TEST_CASE(1); }")).at(0).test_case);
  // lambdas and local types count to the function around them
  CHECK(sizes("void f() { struct X { void g() {} }; h([&](int a) { return a; }); }") ==
        std::vector{29});
  // at the level of a namespace a lambda is a function of its own
  CHECK(sizes("const auto f = [](int a) { return a; };\nstd::map<A, B> m{{1, [] { g(); }}};") ==
        std::vector{5, 6});
  // neither of these is a function
  CHECK(sizes("enum class E { a, b };\nint x[] = {1, 2};\nstd::function<void(int)> f{g};\n"
              "struct S { int a = 1; } s;\nusing F = void (*)(int);")
            .empty());
}

TEST_CASE("commas that join statements are found") {
  CHECK(commas("a = 1, b = 2;") == std::vector{2});
  CHECK(commas("a = 1,\n    b = 2,\n c();") == std::vector{2, 3});
  CHECK(commas("if (x)\n  a += 1, b -= 1;") == std::vector{3});
  CHECK(commas("else\n  f(), g();") == std::vector{3});
  CHECK(commas("return a, b;") == std::vector{2});
  CHECK(commas("for (;;)\n  x(), y();") == std::vector{3});
  CHECK(commas("while (f(), x) {}") == std::vector{2});
  CHECK(commas("x = (a, b);") == std::vector{2});
  CHECK(commas("const auto g = [&] { a(), b(); };") == std::vector{2});
  CHECK(commas("each(n, [&](int i) { a[i] = 1, b[i] = 2; });") == std::vector{2});
  CHECK(commas("switch (x) {\n  case 1: a = 1, b = 2; break;\n  default: c(), d();\n}") ==
        std::vector{3, 4});
  CHECK(commas("++i, ++j;") == std::vector{2});
  CHECK(commas("*p = 1, q = 2;") == std::vector{2});
  CHECK(commas("a.b(c, d), e;") == std::vector{2});
  CHECK(commas("x = T{a, b}, g();") == std::vector{2});
  CHECK(commas("return x ? y : (g(), 0);") == std::vector{2});
  CHECK(commas("x < y ? a() : b(), c();") == std::vector{2});
}

TEST_CASE("commas of declarations, arguments and lists are none of these") {
  for (const char* body : {"int a = 1, b = 2;",
                           "std::vector<int> a, b;",
                           "const auto& [a, b] = f(c, d);",
                           "std::map<int, std::pair<A, B>> m = g<int, 3>(x, y);",
                           "Matrix<S>* a = &b, *c = d;",
                           "for (int i = 0, j = 1; i < n; ++i, --j) {}",
                           "f(a, b, {c, d});",
                           "return {a, b};",
                           "h([a, &b](int c, int d) { return c; });",
                           "X x{1, 2}, y(3, 4);",
                           "a[i, j];",
                           "CHECK((f(a, b) && g(c, d)));",
                           "g<int, float>(x);",
                           "(void(f(args)), ...);",
                           "enum { a, b };",
                           "using F = std::function<void(int, int)>;",
                           "struct P { int a, b; };",
                           "int a[] = {1, 2};",
                           "T a(b, c), d;",
                           "unsigned long a, b;",
                           "if (const auto [a, b] = f(); a) {}",
                           "R\"(a, b)\";",
                           "lib::Name a, b;",
                           "return std::pair(a, [&](int x, int y) { return x; });"}) {
    INFO(body);
    CHECK(commas(body).empty());
  }
}

TEST_CASE("columns are characters") {
  CHECK(columns("abc") == 3);
  CHECK(columns("± µs") == 4);
}
